"""Sizes of images and latents, and padding.

An image of any size is padded to whole latent cells by repeating its last row and column (official
utils/image_process.py:7-21), restored, and cropped back to exactly its size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

LATENT_CELL_PX = 8
"""The SDXL VAE halves three times."""


class Size(NamedTuple):
    """Height first, as in a tensor's shape."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Box(NamedTuple):
    """A rectangle of latent cells: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int


def padded_size_px(size_px: Size) -> Size:
    """The size rounded up to whole latent cells."""
    return Size(*(-(-side // LATENT_CELL_PX) * LATENT_CELL_PX for side in size_px))


def latent_size(size_px: Size) -> Size:
    """Cells of the latent that holds an image of this size."""
    return Size(*(side // LATENT_CELL_PX for side in padded_size_px(size_px)))


def pad_to_latent_cells(image_BCHW: torch.Tensor) -> torch.Tensor:
    """The image padded right and bottom, by repeating its edge, to multiples of 8 px."""
    size_px = Size(*image_BCHW.shape[-2:])
    padded = padded_size_px(size_px)
    if padded == size_px:
        return image_BCHW
    return F.pad(image_BCHW, (0, padded.width - size_px.width, 0, padded.height - size_px.height), mode="replicate")


def crop_to(image_BCHW: torch.Tensor, size_px: Size) -> torch.Tensor:
    """The top left part of the image, which undoes `pad_to_latent_cells`."""
    return image_BCHW[..., : size_px.height, : size_px.width]
