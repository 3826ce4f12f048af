"""Which files of a folder are pictures, which are left out and why, and which names would be one file; may import photo."""
