"""Pictures for the tests of the trainer."""

from __future__ import annotations

import io

import torch
from PIL import Image


def picture(seed: int, height_px: int = 96, width_px: int = 128) -> torch.Tensor:
    """A smooth coloured picture with one edge, uint8 (3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height_px, width_px), mode="bicubic")[0].clamp(0, 1)
    smooth[:, :, width_px // 2 :] *= 0.6
    return (smooth * 255).round().to(torch.uint8)


def png(seed: int, height_px: int = 96, width_px: int = 128) -> bytes:
    """The same as a file."""
    written = io.BytesIO()
    Image.fromarray(picture(seed, height_px, width_px).permute(1, 2, 0).contiguous().numpy(), "RGB").save(written, format="PNG")
    return written.getvalue()
