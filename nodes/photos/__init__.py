"""A photo's file in the host's folders: found, read, and written under a name that nothing has yet; may import seam."""
