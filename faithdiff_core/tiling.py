"""The grid of sampling tiles over a latent, and the weights by which overlapping tiles are blended.

Grid and weights are those of the release (official pipeline_FaithDiff_tlc.py:160-256). What it calls "overlap" is the step
from one tile to the next over the tile's side; here `overlap_frac` is the part that two neighbours share. Both are 0.5 by
default. All sizes are in latent cells.
"""

from __future__ import annotations

import math

import torch

from .geometry import Box, Size

GAUSSIAN_VARIANCE = 0.01
"""Over the squared side of the tile; official pipeline_FaithDiff_tlc.py:222."""


def tile_boxes(size: Size, tile_lat: int, overlap_frac: float) -> list[Box]:
    """The tiles of a latent, row by row.

    All are of one size: `tile_lat`, or the latent's own side where that is shorter. The last tile of a row or column is moved
    back to the border and shares more with its neighbour.

    Args:
        size: of the latent.
        tile_lat: side of a tile, at least 1.
        overlap_frac: part of a tile that it shares with the next one, in [0, 1).
    """
    height, width = min(tile_lat, size.height), min(tile_lat, size.width)
    return [
        Box(top, left, height, width)
        for top in _starts(size.height, height, overlap_frac)
        for left in _starts(size.width, width, overlap_frac)
    ]


def gaussian_weights(height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Weights of a tile's cells, fp32 (height, width) in (0, 1]; the least is e^-25, far from 0 in fp32.

    The release puts the middle at (width - 1) / 2 across but at height / 2 down, half a cell too low
    (pipeline_FaithDiff_tlc.py:223-226). Kept, so that pictures agree with it.
    """
    across = _gaussian(width, (width - 1) / 2, device)
    down = _gaussian(height, height / 2, device)
    return torch.outer(down, across)


def _starts(side: int, tile: int, overlap_frac: float) -> list[int]:
    # Rounded first: 1 - 0.95 is a little more than 0.05, and ceil would make a cell of that.
    step = max(1, math.ceil(round(tile * (1.0 - overlap_frac), 6)))
    return [*range(0, side - tile, step), side - tile]


def _gaussian(side: int, middle: float, device: torch.device | str) -> torch.Tensor:
    offset_frac = (torch.arange(side, dtype=torch.float64) - middle) / side
    return torch.exp(-(offset_frac**2) / (2 * GAUSSIAN_VARIANCE)).to(device=device, dtype=torch.float32)
