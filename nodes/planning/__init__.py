"""What a run will take before it runs; may import tiles, alignment and seam."""
