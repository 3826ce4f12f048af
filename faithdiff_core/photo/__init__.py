"""A photo's file to sRGB pixels and back: profile, depth, alpha, orientation, metadata; may import nothing else of the core."""
