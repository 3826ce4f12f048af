"""PHOTO: what a picture's file had beside its pixels, on its way from FaithDiff Load Photo to FaithDiff Save Photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...faithdiff_core.geometry import Size
from ...faithdiff_core.photo.photo import PhotoSource, same_shape
from ..seam.lanczos import lanczos


@dataclass(frozen=True)
class FaithDiffPhoto:
    """One picture's source, and its alpha (H, W) in [0, 1] as loaded, upright, None for an opaque one."""

    source: PhotoSource
    alpha_HW: torch.Tensor | None

    def alpha_at(self, size: Size) -> torch.Tensor | None:
        """The alpha enlarged as FaithDiff Upscale To Target enlarges.

        Raises:
            ValueError: the size is of another shape.
        """
        if self.alpha_HW is None:
            return None
        old = Size(*self.alpha_HW.shape)
        if not same_shape(old, size):
            raise ValueError(
                f"expected an image of the photo's shape, {old}, for its alpha, got {size}; connect a mask of the image's "
                "own, or no photo"
            )
        return self.alpha_HW if size == old else lanczos(self.alpha_HW[..., None], size)[..., 0].clamp(0.0, 1.0)
