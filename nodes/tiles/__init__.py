"""Tiled sampling on a MODEL; may import alignment and seam."""
