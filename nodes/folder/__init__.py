"""A folder of pictures, one a run: which is next, what became of the others, and where results go; may import photos and seam."""
