"""Two-stage degradation of the Real-ESRGAN kind, seeded per picture; may import common."""
