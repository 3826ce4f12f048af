"""Pictures side by side, to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch

WHITE = 255


def sheet(lines: Sequence[Sequence[torch.Tensor]], *, gap_px: int = 0) -> torch.Tensor:
    """One picture of many, uint8 (3, H, W): lines from the top, each from left to right, with white between its pictures.

    Args:
        lines: uint8 (3, h, w); one height in a line, and lines of one width.
    """
    return torch.cat([_line(pictures, gap_px) for pictures in lines], dim=1)


def _line(pictures: Sequence[torch.Tensor], gap_px: int) -> torch.Tensor:
    gap = torch.full((3, pictures[0].shape[1], gap_px), WHITE, dtype=torch.uint8)
    return torch.cat([part for picture in pictures for part in (gap, picture)][1:], dim=2)
