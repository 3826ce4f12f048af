"""ComfyUI-FaithDiff: faithful image restoration for ComfyUI. The host loads this file; the nodes are in `nodes/`."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
