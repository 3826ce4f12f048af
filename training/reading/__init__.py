"""What OCR engines still read of annotated words; may import common and reports."""
