"""A photo's file in the host's folders: found, read, and written under a name that nothing of a user's has; may import seam."""
