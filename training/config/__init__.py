"""What decides a run: the settings, recipes of them, what replaces them, the files a run starts from; may import common."""
