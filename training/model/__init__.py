"""The networks, their noise and their sampling; may import config and common."""
