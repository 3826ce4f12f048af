"""From pictures on disk to a manifest, with captions; may import common."""
