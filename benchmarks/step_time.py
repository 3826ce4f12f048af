"""A FaithDiff step against the bare UNet's, and tiles batched against tiles one by one: through the host, same weights and
inputs.

A step is one prediction with guidance (two rows), as the host's samplers ask for it."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_patcher
import made_up
from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX
from comfyui_faithdiff.nodes.tiles.run import TileSettings
from comfyui_faithdiff.nodes.tiles.wrapper import with_tiles
from host_process import clock
from predictions import Predict, noisy, together
from rows import Options, Row, Seconds, compared, in_turn

TILES_OVERLAP_FRAC = 0.5
TILES_WIDTH = 2.5
"""Tiles: the image is so many tiles wide, and at half overlap holds four."""
TILE_BATCHES = (2, 4)


def step(options: Options) -> Sequence[Row]:
    """The step with alignment over the step without."""
    made = made_up.made_up(options.size)
    px = options.px or made.widths.px
    models = {"bare UNet": made.model, "FaithDiff": made_up.aligned(made, made_up.features_of(made, px, px))}
    seconds = timed(made, models, options, height_px=px, width_px=px)
    return [compared(f"step, {options.size}", seconds, "FaithDiff", "bare UNet", notes=f"{px} px, {options.device}")]


def tiles(options: Options) -> Sequence[Row]:
    """Two and four tiles in a call over one."""
    made = made_up.made_up(options.size)
    px = options.px or made.widths.px // 2
    width_px = int(TILES_WIDTH * px)
    whole = made_up.aligned(made, made_up.features_of(made, px, width_px))
    models = {f"{count} tile{'s' * (count > 1)} a call": tiled(whole, px, count) for count in (1, *TILE_BATCHES)}
    seconds = timed(made, models, options, height_px=px, width_px=width_px)
    one, *several = models
    notes = f"4 tiles of {px} px, {options.device}"
    return [compared(f"tiles, {options.size}", seconds, name, one, notes=notes) for name in several]


def tiled(model: comfy.model_patcher.ModelPatcher, tile_px: int, tile_batch: int) -> comfy.model_patcher.ModelPatcher:
    settings = TileSettings(tile_size_px=tile_px, tile_overlap_frac=TILES_OVERLAP_FRAC, tile_batch=tile_batch)
    return with_tiles(model, settings)


def timed(
    made: made_up.MadeUp,
    models: dict[str, comfy.model_patcher.ModelPatcher],
    options: Options,
    *,
    height_px: int,
    width_px: int,
) -> Seconds:
    """Seconds of a step of each MODEL, in turn."""
    x_BCHW, sigma = noisy(made.model, height_px // LATENT_CELL_PX, width_px // LATENT_CELL_PX)

    def act(predicts: dict[str, Predict]) -> Seconds:
        return in_turn(predicts, rounds=options.rounds or made.widths.rounds, clock=clock(options.device))

    return together(models, made_up.prompts(made.widths), x_BCHW, sigma, act)
