"""The fidelity decoder: puts into a decoded picture what the photo already has; may import the core's top and files."""
