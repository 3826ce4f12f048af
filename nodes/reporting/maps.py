"""The heat maps of the fidelity report: their kinds and scales, and their numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...faithdiff_core.fidelity.seams import seam_map
from .text import Measurements

MAX_ERROR_U8, MAX_DE00, MAX_SEAM_RATIO = 32, 10, 8
"""The last colour of each map. Fixed, so that maps of two runs can be compared."""
MAP_SCALES = {
    "consistency": f"mean difference of the channels from the input; dark 0, yellow {MAX_ERROR_U8} of 255 and more",
    "color": f"difference of coarse colours (dE00); dark 0, yellow {MAX_DE00} and more",
    "seams": f"jumps at the borders of tiles over those elsewhere; dark 0, yellow {MAX_SEAM_RATIO} and more",
}


def map_of(measured: Measurements, kind: str) -> torch.Tensor:
    """The numbers of the map at the image's size, (H, W), 1 for the last colour."""
    if kind == "seams":
        size_px = measured.image_px
        return torch.zeros(*size_px) if measured.seams is None else seam_map(measured.seams, size_px) / MAX_SEAM_RATIO
    small_HW, maximum = (
        (measured.consistency.error_HW, MAX_ERROR_U8 / 255) if kind == "consistency" else (measured.drift.difference_HW, MAX_DE00)
    )
    return F.interpolate(small_HW[None, None], tuple(measured.image_px), mode="bilinear")[0, 0] / maximum
