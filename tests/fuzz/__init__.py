"""Hostile files: what is thrown at every reader, and what may come of it. tests/soak/fuzz_files.py throws more of them."""
