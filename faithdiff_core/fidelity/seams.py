"""Seams of sampling tiles: does the picture jump at the borders of tiles more than elsewhere?

A jump at a line is the step from one row of pixels to the next, less the mean of the steps before and after it: a smooth slope
has none. Means over short stretches along the line are taken first, so that texture averages out and what keeps one sign, as a
seam does, stays. Jumps at tiles' borders are set against those at all other borders of latent cells: what the VAE leaves
there is no seam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..geometry import LATENT_CELL_PX, Box, Size

STRETCH_PX = 16
"""Measured: with 8, 16 and 32 px the same seams are found."""
INVISIBLE_JUMP = 0.25 / 255
"""A jump that nobody sees, a quarter of a level of 8 bits, is added on both sides: flat pictures have a ratio, too."""
MIN_STANDARD_ERROR = 0.01
"""Of a ratio's logarithm: in a flat picture lines do not differ at all."""


@dataclass(frozen=True, kw_only=True)
class Border:
    """A line where a tile begins or ends.

    Attributes:
        is_row: whether it runs across the picture, else down.
        line_px: the first row or column of pixels behind it.
        ratios_S: the jump of each of its stretches over the mean of those elsewhere; fp32 (S,).
    """

    is_row: bool
    line_px: int
    ratios_S: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What was found at the borders of tiles.

    Attributes:
        ratio: the geometric mean of the jumps there over that elsewhere, 1 without seams; None with nothing to compare with.
        z_score: by how many standard errors the ratio's logarithm differs from 0, the strongest of three or more borders left
            out. Lines differ by what the picture shows there, so that a ratio over few borders says little: the error is that
            of lines, not of stretches.
    """

    borders: tuple[Border, ...]
    ratio: float | None
    z_score: float


def find_seams(image_CHW: torch.Tensor, boxes: list[Box]) -> Seams:
    """The seams of an fp32 (3, H, W) picture in [0, 1], at its full size, that was sampled in tiles `boxes` of its latent."""
    borders: list[Border] = []
    at_borders: list[float] = []
    elsewhere: list[float] = []
    for is_row in (True, False):
        picture_CHW = image_CHW if is_row else image_CHW.transpose(1, 2)
        lines_px = list(range(LATENT_CELL_PX, picture_CHW.shape[1] - 1, LATENT_CELL_PX))
        border_px = _borders_px(boxes, is_row) & set(lines_px)
        if not border_px or len(border_px) == len(lines_px):
            continue
        jumps_LS = _log_jumps(picture_CHW, lines_px)
        is_border_L = torch.tensor([line in border_px for line in lines_px], device=jumps_LS.device)
        jumps_LS = jumps_LS - jumps_LS[~is_border_L].mean()  # each way by itself: many pictures differ across and down
        # torch says of what tolist gives only that it is a list
        at_borders += jumps_LS[is_border_L].mean(dim=1).tolist()  # pyright: ignore[reportUnknownMemberType]
        elsewhere += jumps_LS[~is_border_L].mean(dim=1).tolist()  # pyright: ignore[reportUnknownMemberType]
        ratios_LS = jumps_LS[is_border_L].exp()
        borders += [Border(is_row=is_row, line_px=px, ratios_S=r) for px, r in zip(sorted(border_px), ratios_LS, strict=True)]
    if not borders:
        return Seams(borders=(), ratio=None, z_score=0.0)
    mean = sum(at_borders) / len(at_borders)
    # An edge of the picture may lie on one border, a seam is on most: it must be seen without the strongest, too.
    rest = sorted(at_borders)[:-1] if len(at_borders) > 2 else at_borders
    spread = math.sqrt(sum(jump**2 for jump in elsewhere) / len(elsewhere))
    error = max(spread * math.sqrt(1 / len(rest) + 1 / len(elsewhere)), MIN_STANDARD_ERROR)
    return Seams(borders=tuple(borders), ratio=math.exp(mean), z_score=sum(rest) / len(rest) / error)


def seam_map(seams: Seams, size_px: Size) -> torch.Tensor:
    """The ratios at the borders as bands over a picture of this size, fp32 (H, W), 0 where there is no border."""
    map_HW = torch.zeros(*size_px)
    half_px = max(1, min(size_px) // 128)  # wide enough to be seen in a small view of the picture
    for border in seams.borders:
        along_HW = map_HW if border.is_row else map_HW.T
        band_HW = along_HW[border.line_px - half_px : border.line_px + half_px]
        ratios_W = F.interpolate(border.ratios_S.cpu().view(1, 1, -1), along_HW.shape[1], mode="nearest").view(-1)
        torch.maximum(band_HW, ratios_W, out=band_HW)
    return map_HW


def _borders_px(boxes: list[Box], is_row: bool) -> set[int]:
    edges = ({box.top, box.top + box.height} if is_row else {box.left, box.left + box.width} for box in boxes)
    return {edge * LATENT_CELL_PX for edge in set[int]().union(*edges)}


def _log_jumps(image_CHW: torch.Tensor, lines_px: list[int]) -> torch.Tensor:
    """Logarithms of the jumps at rows `lines_px`, for each stretch along them, (lines, S); the mean over channels."""
    stretches = max(1, image_CHW.shape[2] // STRETCH_PX)
    lines_L = torch.tensor(lines_px, device=image_CHW.device)
    near_CLS = [F.adaptive_avg_pool2d(image_CHW[:, lines_L + offset], (len(lines_px), stretches)) for offset in (-2, -1, 0, 1)]
    before_CLS, step_CLS, after_CLS = (b - a for a, b in zip(near_CLS, near_CLS[1:], strict=False))
    return ((step_CLS - (before_CLS + after_CLS) / 2).abs().mean(dim=0) + INVISIBLE_JUMP).log()
