"""The trainer of ComfyUI-FaithDiff: `python -m training --help`. Uses faithdiff_core; never imports nodes or the host."""
