"""The commands of `python -m training`, one file each, and the only place that knows argparse; may import every room."""
