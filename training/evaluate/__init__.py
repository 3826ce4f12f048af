"""Scores of folders of pictures, their intervals and reports; may import metrics, reading and common."""
