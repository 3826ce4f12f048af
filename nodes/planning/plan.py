"""What sampling in tiles will do, before it is done: tiles, UNet calls, memory and time. Nothing is loaded for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.model_patcher
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size
from ..alignment.patch import KEY as ALIGNMENT_KEY
from ..alignment.patch import AlignmentState
from ..seam.bundle import check_size
from ..seam.unet_loader import require_sdxl
from ..tiles.run import TileSettings, units_that_fit
from .memory import MemoryPlan, free_bytes_in_run, memory_plan
from .time import TimeEstimate, estimate


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of a sampler that predicts once a step, with one prompt on each side.

    Attributes:
        image_px: size of an image; images: how many.
        rows, columns: tiles of an image down and across.
        tile_px: size of a tile; is_untiled: whether tile_size 0 was asked for.
        overlap_down_frac, overlap_across_frac: what neighbours share on average; None where there is one tile.
        units_in_call: tiles in the largest UNet call.
        calls_in_step: UNet calls of one step.
        prompts: 1 at CFG 1, else 2.
        time: None where no run of this network was measured.
    """

    image_px: Size
    images: int
    rows: int
    columns: int
    tile_px: Size
    is_untiled: bool
    overlap_down_frac: float | None
    overlap_across_frac: float | None
    units_in_call: int
    calls_in_step: int
    steps: int
    prompts: int
    memory: MemoryPlan
    time: TimeEstimate | None

    @property
    def tiles(self) -> int:
        """Of all images."""
        return self.rows * self.columns * self.images

    @property
    def calls(self) -> int:
        return self.calls_in_step * self.steps


def plan(
    model: comfy.model_patcher.ModelPatcher, samples: torch.Tensor, *, steps: int, cfg: float, settings: TileSettings
) -> Plan:
    """The plan for a latent (B, C, H, W).

    Raises:
        ValueError: not an SDXL MODEL; not one latent of an image; not the latent that an aligned MODEL was made for.
    """
    require_sdxl(model, "model")
    state: AlignmentState | None = model.get_attachment(ALIGNMENT_KEY)
    if state is not None:
        check_size(state.features, samples)
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        got = "several latents in one" if getattr(samples, "is_nested", False) else f"shape {tuple(samples.shape)}"
        raise ValueError(f"expected a latent of images (batch, 4, height, width), got {got}; use one made for SDXL")
    size, images = Size(*samples.shape[-2:]), samples.shape[0]
    boxes = settings.grid(size, settings.tile_lat)
    rows, columns = len({box.top for box in boxes}), len({box.left for box in boxes})
    tile = boxes[0]
    units, prompts = len(boxes) * images, _prompts(model, cfg)
    calls_in_step = -(-units // _max_units_in_call(model, settings, prompts, tile))
    units_in_call = -(-units // calls_in_step)
    memory = memory_plan(model, samples.shape, tile, units=units, units_in_call=units_in_call, prompts=prompts)
    tile_size = Size(tile.height, tile.width)
    return Plan(
        image_px=Size(*(side * LATENT_CELL_PX for side in size)) if state is None else state.features.size_px,
        images=images,
        rows=rows,
        columns=columns,
        tile_px=Size(*(side * LATENT_CELL_PX for side in tile_size)),
        is_untiled=not settings.tile_lat,
        overlap_down_frac=_overlap_frac(rows, tile.height, size.height),
        overlap_across_frac=_overlap_frac(columns, tile.width, size.width),
        units_in_call=units_in_call,
        calls_in_step=calls_in_step,
        steps=steps,
        prompts=prompts,
        memory=memory,
        time=estimate(model, tile_size, rows_in_call=units_in_call * prompts, rows=units * prompts * steps),
    )


def _max_units_in_call(model: comfy.model_patcher.ModelPatcher, settings: TileSettings, prompts: int, tile: Box) -> int:
    return settings.tile_batch or units_that_fit(model.model, prompts, tile, model.load_device, free_bytes_in_run(model))


def _prompts(model: comfy.model_patcher.ModelPatcher, cfg: float) -> int:
    """By the host's own rule (H comfy/samplers.py, sampling_function)."""
    leaves_one_out = math.isclose(cfg, 1.0) and not model.model_options.get("disable_cfg1_optimization", False)
    return 1 if leaves_one_out else 2


def _overlap_frac(tiles: int, tile_lat: int, side_lat: int) -> float | None:
    return None if tiles == 1 else (tiles * tile_lat - side_lat) / ((tiles - 1) * tile_lat)
