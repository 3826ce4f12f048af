"""The heat maps of the fidelity report: their kinds and scales, and their numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...faithdiff_core.fidelity.seams import seam_map
from .text import Figures

# The last colour of each map. Fixed, so that maps of two runs can be compared.
MOST_ERROR_U8, MOST_DE00, MOST_SEAM_RATIO = 32, 10, 8
MAP_SCALES = {
    "consistency": f"mean difference of the channels from the input; dark 0, yellow {MOST_ERROR_U8} of 255 and more",
    "color": f"difference of coarse colours (dE00); dark 0, yellow {MOST_DE00} and more",
    "seams": f"jumps at the borders of tiles over those elsewhere; dark 0, yellow {MOST_SEAM_RATIO} and more",
}


def map_of(figures: Figures, kind: str) -> torch.Tensor:
    """The numbers of the map at the image's size, (H, W), 1 for the last colour."""
    if kind == "seams":
        size_px = figures.image_px
        return torch.zeros(*size_px) if figures.seams is None else seam_map(figures.seams, size_px) / MOST_SEAM_RATIO
    small_HW, most = (
        (figures.consistency.error_HW, MOST_ERROR_U8 / 255) if kind == "consistency" else (figures.drift.difference_HW, MOST_DE00)
    )
    return F.interpolate(small_HW[None, None], tuple(figures.image_px), mode="bilinear")[0, 0] / most
