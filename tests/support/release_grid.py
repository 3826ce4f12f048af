"""The release's grid of tiles, restated; knows no host."""

from __future__ import annotations

import math


def official_starts(side: int, tile: int, step_frac: float) -> list[int]:
    """One axis: advances by a part of the tile, and moves the last one back to the border (pipeline_FaithDiff_tlc.py:172-214)."""
    tile = min(tile, side)
    count = (side - 1) // tile + 1
    step = tile if count == 1 else math.ceil(tile * step_frac)
    starts, start, last = [], 0, False
    while start < side and not last:
        if start + tile >= side:
            start, last = side - tile, True
        starts.append(start)
        start += step
    return starts
