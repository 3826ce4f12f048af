"""Tiled sampling on a MODEL: at every step the tiles' predictions are blended into one for the whole image.

Three keyed wrappers ride on the MODEL, so that any sampler of the host works with tiles:

* PREPARE_SAMPLING: tells the host the size of a batch of tiles, not of the image, so that it frees memory for that.
* SAMPLER_SAMPLE, once per run: opens the run's state, and draws one progress bar over all tiles and steps.
* CALC_COND_BATCH, at every prediction: cuts latent and conditions, calls the host with batches of tiles, and blends. The release
  steps each tile and blends latents (official pipeline_FaithDiff_tlc.py:1330-1409); for Euler that is the same sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size
from ...faithdiff_core.tiling import gaussian_weights
from ..alignment.patch import KEY as ALIGNMENT_KEY
from ..alignment.patch import AlignmentRun
from ..seam import host
from ..seam.unet_loader import require_sdxl
from .conditions import TileConditions
from .precision import Predict, finite_predictions, models_of
from .run import TileSettings, TilesRun, TileUnit

KEY = "faithdiff_tiles"


def with_tiles(model: comfy.model_patcher.ModelPatcher, settings: TileSettings) -> comfy.model_patcher.ModelPatcher:
    """A clone of an SDXL MODEL that samples in tiles; settings that were on it before are replaced.

    Raises:
        ValueError: not an SDXL MODEL.
    """
    require_sdxl(model, "model")
    model = model.clone()
    wrappers = {
        WrappersMP.PREPARE_SAMPLING: prepare_sampling,
        WrappersMP.SAMPLER_SAMPLE: sampler_sample,
        WrappersMP.CALC_COND_BATCH: calc_cond_batch,
    }
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    model.set_attachments(KEY, settings)
    return model


def prepare_sampling(executor, model, noise_shape, conds, *args, **kwargs):
    """PREPARE_SAMPLING wrapper."""
    settings: TileSettings = model.get_attachment(KEY)
    boxes = settings.grid(Size(*noise_shape[-2:]), settings.tile_lat)
    units = len(boxes) * noise_shape[0]
    if units > 1:
        noise_shape = [min(units, settings.tile_batch or 1), *noise_shape[1:-2], boxes[0].height, boxes[0].width]
    return executor(model, noise_shape, conds, *args, **kwargs)


def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    """SAMPLER_SAMPLE wrapper."""
    run = TilesRun(guider.model_patcher.get_attachment(KEY), steps=max(1, len(sigmas) - 1))
    model_options = extra_args["model_options"]
    transformer_options = {**model_options.get("transformer_options", {}), KEY: run}
    extra_args = {**extra_args, "model_options": {**model_options, "transformer_options": transformer_options}}
    try:
        return executor(guider, sigmas, extra_args, run.progress.wrap(callback), noise, *args, **kwargs)
    finally:
        run.warn()
        run.clock.keep(guider.model_patcher)


def calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
    """CALC_COND_BATCH wrapper."""
    options = model_options.get("transformer_options", {})
    # A guider that predicts outside of a run has no state; the settings are on the MODEL all the same.
    run: TilesRun = options.get(KEY) or TilesRun(model.current_patcher.get_attachment(KEY))
    step = _Step(executor, model, conds, x_in, timestep, model_options, run)
    while True:
        units = run.units(x_in)
        per_call = min(len(units), run.units_per_call(model, conds, x_in, units[0].box))
        try:
            return step.blended(units, per_call)
        except Exception as e:  # the host tells which of them mean that memory is out
            if not host.is_oom(e) or not run.step_down(per_call, step.size):
                raise
        # Outside of the except block, whose traceback still holds the tensors of the call.
        if step.alignment is not None:
            step.alignment.embeddings.clear()
        mm.soft_empty_cache()


class _Step:
    """One prediction of the whole latent, as the sampler asks for it."""

    def __init__(
        self,
        executor: Callable[..., list[torch.Tensor]],
        model: comfy.model_base.SDXL,
        conds: list[list[dict[str, Any]] | None],
        x_BCHW: torch.Tensor,
        timestep_B: torch.Tensor,
        model_options: dict[str, Any],
        run: TilesRun,
    ):
        self.executor, self.model, self.conds, self.model_options = executor, model, conds, model_options
        self.x_BCHW, self.timestep_B, self.run = x_BCHW, timestep_B, run
        self.size = Size(*x_BCHW.shape[-2:])
        self.alignment: AlignmentRun | None = model_options.get("transformer_options", {}).get(ALIGNMENT_KEY)

    def blended(self, units: list[TileUnit], per_call: int) -> list[torch.Tensor]:
        """The prediction (B, 4, H, W) for each prompt, from calls of at most `per_call` units.

        Raises:
            ValueError: predictions that are not finite even in fp32; conditions that cannot be cut.
        """
        self.run.progress.begin(len(units))
        tile = units[0].box
        is_untiled = tile == Box(0, 0, *self.size)  # the only tile of each image
        if is_untiled and per_call == len(units):  # nothing to cut: the very call that the host would make
            return self._finite(units, self._call_untiled, splittable=False)
        conditions = TileConditions.at_step(
            self.conds, self.x_BCHW, self.timestep_B, self.model, self.alignment,
            tile_px=0 if is_untiled else self.run.tile_lat * LATENT_CELL_PX,
            scaled_hints=self.run.scaled_hints,
        )  # fmt: skip
        weights_HW = gaussian_weights(tile.height, tile.width, self.x_BCHW.device)
        if is_untiled:
            weights_HW = torch.ones_like(weights_HW)
        outs = [torch.zeros_like(self.x_BCHW) for _ in self.conds]
        total_B1HW = self.x_BCHW.new_zeros((self.x_BCHW.shape[0], 1, *self.size))
        for batch in _batches(units, conditions, per_call):
            predictions = self._finite(batch, lambda some: self._call(some, conditions), splittable=True)
            for row, (image, box) in enumerate(batch):
                cells = (image, slice(None), slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
                for out, prediction in zip(outs, predictions, strict=True):
                    out[cells] += prediction[row] * weights_HW
                total_B1HW[cells] += weights_HW
        return [out / total_B1HW for out in outs]

    def _finite(self, units: list[TileUnit], call: Predict, *, splittable: bool) -> list[torch.Tensor]:
        mm.throw_exception_if_processing_interrupted()
        predictions, recomputed = finite_predictions(
            call, units, models_of(self.model, self.model_options), splittable=splittable
        )
        self.run.recomputed(recomputed)
        self.run.clock.call_ended(len(units), units[0].box, sum(conds is not None for conds in self.conds))
        self.run.progress.add(len(units))
        return predictions

    def _call_untiled(self, _units: list[TileUnit]) -> list[torch.Tensor]:
        return self.executor(self.model, self.conds, self.x_BCHW, self.timestep_B, self.model_options)

    def _call(self, units: list[TileUnit], conditions: TileConditions) -> list[torch.Tensor]:
        rows = self.timestep_B.shape[0]
        timestep_N = self.timestep_B[[u.image % rows for u in units]]
        x_NCHW = torch.stack([self.x_BCHW[i, :, b.top : b.top + b.height, b.left : b.left + b.width] for i, b in units])
        return self.executor(self.model, conditions.cut(units), x_NCHW, timestep_N, self.model_options)


def _batches(units: list[TileUnit], conditions: TileConditions, per_call: int) -> Iterator[list[TileUnit]]:
    """Units that can share a call, in calls of nearly equal size: a compiled UNet then sees two sizes at most."""
    groups: dict[tuple, list[TileUnit]] = {}
    for unit in units:
        groups.setdefault(conditions.signature(unit), []).append(unit)
    for group in groups.values():
        calls = -(-len(group) // per_call)
        for i in range(calls):
            yield group[i * len(group) // calls : (i + 1) * len(group) // calls]
