"""How long sampling takes: what earlier runs of this process took for a row of a UNet call, and an estimate from it.

Nothing is guessed: without a run of the same network on the same device there is no estimate. Shapes: a row is one tile for one
prompt.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import comfy.model_patcher
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size

# A UNet call of c latent cells takes c * (1 + c / this): the quadratic part is self-attention. Fitted to the multiply-adds of
# SDXL's UNet at 64 x 64, 128 x 128 and 256 x 256 cells (Vega's: 155,000), where it is 11 % of the work at 128 x 128.
CELLS_OF_EQUAL_ATTENTION = 130_000


class NetworkKey(NamedTuple):
    """Runs of equal keys take equally long."""

    kind: str
    config: str
    weight_dtype: torch.dtype
    compute_dtype: torch.dtype
    device: str


class CallShape(NamedTuple):
    """Latent cells of a tile, and rows of the largest call."""

    size: Size
    rows: int


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Seconds of sampling, without loading the MODEL.

    Attributes:
        seconds: about.
        measured_px: size of the tiles that were measured.
    """

    seconds: float
    measured_px: Size


# Of this process. The number of entries is that of the networks and tile sizes that somebody has tried.
_row_seconds: dict[NetworkKey, dict[CallShape, float]] = {}


def network_key(model: comfy.model_patcher.ModelPatcher) -> NetworkKey:
    base = model.model
    config = str(sorted(base.model_config.unet_config.items(), key=lambda item: item[0]))
    return NetworkKey(type(base).__name__, config, base.get_dtype(), base.get_dtype_inference(), str(model.load_device))


class CallClock:
    """Times the UNet calls of one run from the end of one to the end of the next, so that all work between them is in it.

    The device is not waited for: in half precision every call's result is looked at anyway, and otherwise no more than a part of
    one call can be under way.
    """

    def __init__(self) -> None:
        self._last_s = time.perf_counter()
        self._size: Size | None = None
        self._rows, self._seconds, self._most_rows = 0, 0.0, 0
        self._first_row_seconds = 0.0

    def call_ended(self, units: int, tile: Box, prompts: int) -> None:
        now_s = time.perf_counter()
        took_s, rows = now_s - self._last_s, units * prompts
        self._last_s = now_s
        size = Size(tile.height, tile.width)
        if size != self._size:  # the first call, or the first after running out of memory: warming up, failed attempts
            self._size = size
            self._rows, self._seconds, self._most_rows = 0, 0.0, rows
            self._first_row_seconds = took_s / rows
        else:
            self._rows += rows
            self._seconds += took_s
            self._most_rows = max(self._most_rows, rows)

    def keep(self, model: comfy.model_patcher.ModelPatcher) -> None:
        """Remembers the run, finished or not. Its first call counts only where nothing better is known."""
        if self._size is None:
            return
        known = _row_seconds.setdefault(network_key(model), {})
        shape = CallShape(self._size, self._most_rows)
        if self._rows:
            known.pop(shape, None)  # so that the latest is the last
            known[shape] = self._seconds / self._rows
        else:
            known.setdefault(shape, self._first_row_seconds)


def shapes_known() -> int:
    """How many networks and tile sizes there are times of."""
    return sum(len(known) for known in _row_seconds.values())


def estimate(model: comfy.model_patcher.ModelPatcher, tile: Size, *, rows_in_call: int, rows: int) -> TimeEstimate | None:
    """What `rows` rows in calls of `rows_in_call` will take, scaled from the most similar run; None where there was none."""
    known = _row_seconds.get(network_key(model))
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
