"""Weights from the Hugging Face hub, asked for by name: fetched, checked, made half as large; may import files."""
