"""Scores of folders of pictures, their intervals and reports; may import metrics, reading, reports and common."""
