"""How long sampling takes: what earlier runs of this process took for a row of a UNet call, and an estimate from it.

Nothing is guessed: without a run of the same network on the same device there is no estimate. Shapes: a row is one tile for one
prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.model_patcher

from ...faithdiff_core.geometry import LATENT_CELL_PX, Size
from ..tiles.clock import CallShape, row_seconds

CELLS_OF_EQUAL_ATTENTION = 130_000
"""A UNet call of c latent cells takes c * (1 + c / this): the quadratic part is self-attention. Fitted to the multiply-adds of
SDXL's UNet at 64 x 64, 128 x 128 and 256 x 256 cells (Vega's: 155,000), where it is 11 % of the work at 128 x 128."""


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Seconds of sampling, without loading the MODEL.

    Attributes:
        seconds: about.
        measured_px: size of the tiles that were measured.
    """

    seconds: float
    measured_px: Size


def estimate(model: comfy.model_patcher.ModelPatcher, tile: Size, *, rows_in_call: int, rows: int) -> TimeEstimate | None:
    """What `rows` rows in calls of `rows_in_call` will take, scaled from the most similar run; None where there was none."""
    known = row_seconds(model)
    if not known:
        return None

    def distance(shape: CallShape) -> tuple[float, float]:
        return abs(math.log(_work(shape.size) / _work(tile))), abs(math.log(shape.rows / rows_in_call))

    nearest = min(reversed(known), key=distance)
    seconds = rows * known[nearest] * _work(tile) / _work(nearest.size)
    return TimeEstimate(seconds=seconds, measured_px=Size(*(side * LATENT_CELL_PX for side in nearest.size)))


def _work(tile: Size) -> float:
    cells = tile.height * tile.width
    return cells * (1 + cells / CELLS_OF_EQUAL_ATTENTION)
