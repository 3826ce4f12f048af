"""The LQ encoder on images of any size; may import the core's top."""
