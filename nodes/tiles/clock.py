"""Times the UNet calls of a run, and remembers for this process what a row of them took. A row is one tile for one prompt."""

from __future__ import annotations

import time
from typing import NamedTuple

import comfy.model_patcher
import torch

from ...faithdiff_core.geometry import Box, Size


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


_row_seconds: dict[NetworkKey, dict[CallShape, float]] = {}
"""Of this process. The number of entries is that of the networks and tile sizes that somebody has tried."""


def network_key(model: comfy.model_patcher.ModelPatcher) -> NetworkKey:
    """Of a MODEL's network on its device."""
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
        self._rows, self._seconds, self._max_rows = 0, 0.0, 0
        self._first_row_seconds = 0.0

    def call_ended(self, units: int, tile: Box, prompts: int) -> None:
        now_s = time.perf_counter()
        took_s, rows = now_s - self._last_s, units * prompts
        self._last_s = now_s
        size = Size(tile.height, tile.width)
        if size != self._size:  # the first call, or the first after running out of memory: warming up, failed attempts
            self._size = size
            self._rows, self._seconds, self._max_rows = 0, 0.0, rows
            self._first_row_seconds = took_s / rows
        else:
            self._rows += rows
            self._seconds += took_s
            self._max_rows = max(self._max_rows, rows)

    def keep(self, model: comfy.model_patcher.ModelPatcher) -> None:
        """Remembers the run, finished or not. Its first call counts only where nothing better is known."""
        if self._size is None:
            return
        known = _row_seconds.setdefault(network_key(model), {})
        shape = CallShape(self._size, self._max_rows)
        if self._rows:
            known.pop(shape, None)  # so that the latest is the last
            known[shape] = self._seconds / self._rows
        else:
            known.setdefault(shape, self._first_row_seconds)


def shapes_known() -> int:
    """How many networks and tile sizes there are times of."""
    return sum(len(known) for known in _row_seconds.values())


def row_seconds(model: comfy.model_patcher.ModelPatcher) -> dict[CallShape, float]:
    """What earlier runs of the same network on the same device took for a row, the latest last; empty where there was none."""
    return _row_seconds.get(network_key(model), {})
