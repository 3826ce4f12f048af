"""Decoding with the bundled nano model and fidelity decoders of random weights."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from comfyui_faithdiff.nodes.decode import FaithDiffDecode
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ

from . import tiny

NANO = replace(tiny.DECODER, feature_channels=128)
"""For the bundled nano model's features."""
BROKEN_FILE, NANO_FILE, OTHER_FILE = (f"{letter}_fidelity.safetensors" for letter in "abc")
"""In the folder of the fixture `decoders`: no decoder at all, one for the nano model, and one for other features."""


def encoded(nano, vae, image: torch.Tensor):
    """Features of an image, and a latent that is not quite the image's own."""
    features, latent = FaithDiffEncodeLQ.execute(nano.faithdiff, image, 0, vae).args
    noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(3))
    return features, {"samples": latent["samples"] + 0.3 * noise}


def decode(latent, vae, features, fidelity=1.0, decoder="auto", mask=None) -> torch.Tensor:
    return FaithDiffDecode.execute(latent, vae, features, fidelity, decoder, mask).args[0]


def said(caplog, level=logging.WARNING) -> list[str]:
    """What the pack has logged."""
    return [r.getMessage() for r in caplog.records if r.levelno == level and r.getMessage().startswith("FaithDiff")]
