"""Numbers for a picture beside its truth, each name with one convention; may import common."""
