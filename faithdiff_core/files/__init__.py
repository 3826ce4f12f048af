"""Weight files: layouts, key names, metadata, checks before they are trusted; may import nothing else of the core."""
