"""What reports are made of: intervals, tables, sheets of pictures; imports no other room."""
