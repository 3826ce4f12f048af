"""Colours of whole pictures: CIE Lab, statistics and levels, in strips of rows; imports no other room."""
