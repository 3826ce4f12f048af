"""Files, pictures, seeds and processes, as every room needs them; may import no other room."""
