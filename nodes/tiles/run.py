"""What tiles are asked for, and what one sampling run with tiles knows: its grid, how many tiles go into a call, its progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.model_base
import comfy.model_management as mm
import comfy.utils
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size
from ...faithdiff_core.tiling import tile_boxes
from .clock import CallClock

MIN_FALLBACK_PX = 512
"""Out of memory halves the tiles down to this: smaller than any size that SDXL or FaithDiff was trained at."""
MIN_TILE_SIZE_PX = 64
MAX_TILES_IN_CALL = 8
"""More at once fills no device any better and takes memory from the weights."""
MAX_CELLS_IN_CALL_ON_CPU = 128 * 128
"""A CPU gains from small tiles only (a fifth of the time from four of 256 px in the nano net): together they may be as large as
one of 1024 px."""
LATENT_CHANNELS = 4
MEMORY_MARGIN = 1.5
"""The host's own, for the same question (H comfy/samplers.py, _calc_cond_batch)."""


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """Tiled sampling as asked for.

    Attributes:
        tile_size_px: side of a tile, a multiple of 8; 0 takes the image whole.
        tile_overlap_frac: part of a tile that it shares with the next one, in [0, 0.95].
        tile_batch: tiles in a UNet call; 0 takes as many as fit.

    Raises:
        ValueError: values out of these ranges.
    """

    tile_size_px: int
    tile_overlap_frac: float
    tile_batch: int

    def __post_init__(self) -> None:
        size = self.tile_size_px
        if size and (size < MIN_TILE_SIZE_PX or size % LATENT_CELL_PX):
            nearest = max(MIN_TILE_SIZE_PX, round(size / LATENT_CELL_PX) * LATENT_CELL_PX)
            raise ValueError(
                f"expected tile_size 0 or a multiple of {LATENT_CELL_PX} px from {MIN_TILE_SIZE_PX}, got {size}; use {nearest}"
            )
        if not 0.0 <= self.tile_overlap_frac <= 0.95:
            raise ValueError(f"expected tile_overlap in [0, 0.95], got {self.tile_overlap_frac}; the release uses 0.5")
        if self.tile_batch < 0:
            raise ValueError(f"expected tile_batch 0 or more, got {self.tile_batch}; 0 takes as many tiles as fit")

    def grid(self, size: Size, tile_lat: int) -> list[Box]:
        """The tiles of a latent of this size; a `tile_lat` of 0 is one tile for the whole."""
        return tile_boxes(size, tile_lat or max(size), self.tile_overlap_frac)

    @property
    def tile_lat(self) -> int:
        return self.tile_size_px // LATENT_CELL_PX


class TileUnit(NamedTuple):
    """The smallest part of a UNet call: one tile of one image of the batch."""

    image: int
    box: Box


class TilesRun:
    """The state of one sampling run. Changes when the device runs out of memory.

    Attributes:
        tile_lat: side of a tile now, 0 for the whole image.
        scaled_hints: hints of ControlNets at the size of the image, by hint and size.
    """

    def __init__(self, settings: TileSettings, steps: int = 1):
        self.settings = settings
        self.tile_lat = settings.tile_lat
        self.scaled_hints: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}
        self.progress = TileProgress(steps)
        self.clock = CallClock()
        self._max_units: int | None = None
        self._recomputed_units = 0

    def units(self, x_BCHW: torch.Tensor) -> list[TileUnit]:
        boxes = self.settings.grid(Size(*x_BCHW.shape[-2:]), self.tile_lat)
        return [TileUnit(image, box) for box in boxes for image in range(x_BCHW.shape[0])]

    def units_per_call(self, model: comfy.model_base.SDXL, conds: list[list | None], x_BCHW: torch.Tensor, box: Box) -> int:
        """As many as asked for, else as many as fit by the host's own estimate."""
        prompts, free_bytes = sum(c is not None for c in conds), model.current_patcher.get_free_memory(x_BCHW.device)
        max_units = self.settings.tile_batch or units_that_fit(model, prompts, box, x_BCHW.device, free_bytes)
        return min(max_units, self._max_units or max_units)

    def step_down(self, units_in_call: int, size: Size) -> bool:
        """After running out of memory: half as many tiles in a call, then tiles of half the side. False when neither is left."""
        if units_in_call > 1:
            self._max_units = units_in_call // 2
            logging.info("FaithDiff: out of memory with %d tiles in a call, going on with %d", units_in_call, self._max_units)
            return True
        tile_lat = min(self.tile_lat or max(size), max(size))
        smaller_lat = max(MIN_FALLBACK_PX // LATENT_CELL_PX, -(-tile_lat // 2))
        if smaller_lat >= tile_lat:
            return False
        self.tile_lat = smaller_lat
        logging.info("FaithDiff: out of memory with a tile of %d px, going on with %d px", *_px(tile_lat, smaller_lat))
        return True

    def recomputed(self, units: int) -> None:
        self._recomputed_units += units

    def warn(self) -> None:
        """Says once, when the run is over, what went otherwise than asked for."""
        changes = []
        if self._max_units is not None:
            changes.append(f"at most {self._max_units} tiles in a call")
        if self.tile_lat != self.settings.tile_lat:
            asked = f"{self.settings.tile_size_px} px" if self.settings.tile_lat else "the whole image"
            (now_px,) = _px(self.tile_lat)
            changes.append(f"tiles of {now_px} px instead of {asked}, which changes the picture slightly")
        if changes:
            logging.warning(
                "FaithDiff: out of memory while sampling; the run went on with %s. Set tile_size and tile_batch so from the "
                "start to save the attempts.",
                " and ".join(changes),
            )
        if self._recomputed_units:
            logging.warning(
                "FaithDiff: %d predictions of tiles overflowed in half precision and were computed again in fp32; start "
                "ComfyUI with --bf16-unet or --fp32-unet if this takes long.",
                self._recomputed_units,
            )


class TileProgress:
    """One bar over all tiles and steps, on the host's own bar."""

    def __init__(self, steps: int):
        self._steps = steps
        self._units, self._step, self._done = 1, 0, 0
        self._bar = comfy.utils.ProgressBar(steps)

    def begin(self, units: int) -> None:
        self._units = units

    def add(self, units: int) -> None:
        # A solver of second order predicts twice a step: the bar then waits at the step's end.
        self._done = min(self._done + units, self._units)
        if self._units > 1:
            self._bar.update_absolute(self._step * self._units + self._done, self._steps * self._units)

    def wrap(self, callback: Callable[..., Any] | None) -> Callable[..., Any]:
        """The sampler's callback, given tiles as steps where it is the host's own, which draws its bar by them."""
        counts_tiles = getattr(callback, "__module__", None) == "latent_preview"

        def after_step(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> Any:
            self._step, self._done, self._steps = step + 1, 0, total_steps
            if callback is None:
                return None
            if counts_tiles:
                return callback((step + 1) * self._units - 1, x0, x, total_steps * self._units)
            return callback(step, x0, x, total_steps)

        return after_step


def units_that_fit(model: comfy.model_base.SDXL, prompts: int, box: Box, device: torch.device, free_bytes: float) -> int:
    """Tiles of this size in a call, each for every prompt, at least 1."""
    if mm.is_device_cpu(device):
        fitting = MAX_CELLS_IN_CALL_ON_CPU // (box.height * box.width)
    else:
        fitting = int(free_bytes // (call_bytes(model, prompts, box) * MEMORY_MARGIN))
    return max(1, min(MAX_TILES_IN_CALL, fitting))


def call_bytes(model: comfy.model_base.SDXL, rows: int, box: Box) -> float:
    """The host's own estimate for a call of so many tiles, without the weights and without a margin."""
    return model.memory_required([rows, LATENT_CHANNELS, box.height, box.width])


def _px(*sides_lat: int) -> tuple[int, ...]:
    return tuple(side * LATENT_CELL_PX for side in sides_lat)
