"""The hub's files for a first picture, as the tests with a server have them on a local hub."""

from __future__ import annotations

import io

import torch
from comfyui_faithdiff.faithdiff_core.files.checkpoint import assemble_released

from . import tiny
from .hub_files import CHECKPOINT, FAITHDIFF, noise

BIN, HALF, SDXL = "FaithDiff.bin", "FaithDiff_fp16.safetensors", "RealVisXL_V4.0.safetensors"
SDXL_BYTES = 300_000


def released_and_checkpoint() -> dict[str, dict[str, bytes]]:
    """The tiny network as FaithDiff.bin, and a checkpoint that is noise: nothing loads it."""
    data = io.BytesIO()
    torch.save(assemble_released(tiny.made_up_parts()), data)
    return {FAITHDIFF: {BIN: data.getvalue()}, CHECKPOINT: {SDXL: noise(SDXL_BYTES)}}
