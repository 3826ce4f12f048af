"""What a sampling run in tiles will take of memory, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size
from ..alignment.patch import EMBEDDINGS_OF_FREE_FRAC, MAX_EMBEDDINGS_BYTES, AlignmentState
from ..alignment.patch import KEY as ALIGNMENT_KEY
from ..seam.unet_loader import model_channels
from ..tiles.run import LATENT_CHANNELS, MIN_TILE_SIZE_PX, call_bytes

TILE_STEP_PX = 64
"""Of the input tile_size."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a run will take, in bytes.

    Attributes:
        weights_bytes: of the UNet and of what runs with it.
        call_bytes: the host's estimate for the largest UNet call, without the weights.
        features_bytes: of the LQ features; 0 for a MODEL without alignment.
        features_on_device: whether they take memory of the device; else main memory.
        embeddings_bytes: of the features' embeddings that are kept during a run, at most.
        latents_bytes: noise, latents and predictions of the whole image.
        device_bytes: what the device has in all.
        row_bytes: the host's estimate for the smallest call, one tile for one prompt.
        fitting_tile_px: the largest tile whose smallest call fits on the device; 0 where none does.
    """

    weights_bytes: int
    call_bytes: float
    features_bytes: int
    features_on_device: bool
    embeddings_bytes: float
    latents_bytes: int
    device_bytes: int
    row_bytes: float
    fitting_tile_px: int


def memory_plan(
    model: comfy.model_patcher.ModelPatcher, latent: torch.Size, tile: Box, *, units: int, units_in_call: int, prompts: int
) -> MemoryPlan:
    """For a latent of shape (B, C, H, W) in `units` tiles, at most `units_in_call` of them in a call, each for every prompt."""
    state: AlignmentState | None = model.get_attachment(ALIGNMENT_KEY)
    features_BCHW = None if state is None else state.features.features_BCHW
    device_bytes: int = mm.get_total_memory(model.load_device)  # pyright: ignore[reportAssignmentType]  (a tuple if asked for two)
    weights = weights_bytes(model)
    # Weights that do not fit beside a call stay in main memory; on a CPU there is no other place for them.
    available_bytes = device_bytes - (weights if mm.is_device_cpu(model.load_device) else 0)
    one_latent_bytes = latent[0] * LATENT_CHANNELS * latent[-2] * latent[-1] * torch.float32.itemsize
    return MemoryPlan(
        weights_bytes=weights,
        call_bytes=call_bytes(model.model, units_in_call * prompts, tile),
        features_bytes=0 if features_BCHW is None else features_BCHW.nbytes,
        features_on_device=features_BCHW is not None and features_BCHW.device.type != "cpu",
        embeddings_bytes=0 if state is None else _embeddings_bytes(model, units, tile),
        # The host's noise, start, current and denoised latent; a prediction for each prompt; the sum of the tiles' weights.
        latents_bytes=one_latent_bytes * (4 + prompts) + one_latent_bytes // LATENT_CHANNELS,
        device_bytes=device_bytes,
        row_bytes=call_bytes(model.model, 1, tile),
        fitting_tile_px=_fitting_tile_px(model, Size(tile.height, tile.width), available_bytes),
    )


def weights_bytes(model: comfy.model_patcher.ModelPatcher) -> int:
    """Of the UNet and of what runs with it."""
    return sum(patcher.model_size() for patcher in (model, *model.get_nested_additional_models()))


def free_bytes_in_run(model: comfy.model_patcher.ModelPatcher) -> float:
    """What will about be free on the device for calls, once the weights are there.

    What other models hold counts as taken: the host unloads no more of them than it must.
    """
    free_bytes = model.get_free_memory(model.load_device)
    if model.is_dynamic():
        return free_bytes  # weights give way to calls, and the host counts their memory as free
    loaded_bytes = sum(patcher.loaded_size() for patcher in (model, *model.get_nested_additional_models()))
    return max(0.0, free_bytes - (weights_bytes(model) - loaded_bytes))


def _embeddings_bytes(model: comfy.model_patcher.ModelPatcher, units: int, tile: Box) -> float:
    itemsize = model.model.get_dtype_inference().itemsize
    budget_bytes = min(MAX_EMBEDDINGS_BYTES, EMBEDDINGS_OF_FREE_FRAC * free_bytes_in_run(model))
    return min(budget_bytes, units * model_channels(model) * tile.height * tile.width * itemsize)


def _fitting_tile_px(model: comfy.model_patcher.ModelPatcher, tile: Size, available_bytes: float) -> int:
    """The side of the tile itself where it fits, else of the largest square one that does."""
    if call_bytes(model.model, 1, Box(0, 0, *tile)) <= available_bytes:
        return max(tile) * LATENT_CELL_PX
    max_px = max(tile) * LATENT_CELL_PX // TILE_STEP_PX * TILE_STEP_PX
    for side_px in range(max_px, MIN_TILE_SIZE_PX - 1, -TILE_STEP_PX):
        side_lat = side_px // LATENT_CELL_PX
        if call_bytes(model.model, 1, Box(0, 0, min(side_lat, tile.height), min(side_lat, tile.width))) <= available_bytes:
            return side_px
    return 0
