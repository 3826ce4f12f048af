"""The hook: how the alignment module gets into the host's SDXL UNet.

Two keyed wrappers and one additional model ride on the MODEL, so that clones, LoRA, ControlNet and other packs' patches compose:

* SAMPLER_SAMPLE, once per run: gives every prompt a map of *cells*, int32 (B, 3, H, W): which image, row and column of the
features
  belongs to each latent cell. Whoever cuts conditions into areas, tiles or batches cuts the map with them, and integers are never
  rounded to half precision. Also writes SDXL's size conditioning, and opens the run's cache.
* APPLY_MODEL, once per UNet call: reads the map back, looks the alignment module up for the device at hand, and puts a patch
before
  all others at ("input", 0), right after the UNet's first convolution and before the skip is stored (official
  unet_2d_condition_vae_extension.py:571-579). The patch is there at every step, acting or not: a compiled UNet must see the same
  options throughout a run.

The features' embedding does not depend on the timestep: it is made once per image and cut, and lives as long as the run.

Shapes: B batch, C channels, H and W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.conds
import comfy.model_management as mm
import comfy.model_patcher
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP

from ..faithdiff_core.alignment import AlignmentModule
from ..faithdiff_core.geometry import LATENT_CELL_PX, Box, Size, latent_size
from .bundle import FaithDiffFeatures, check_size
from .host import on_device_of
from .size_conditioning import SizeConditioning, with_size_conditioning

KEY = "faithdiff"

# Tiles at half overlap cover every cell four times; a tiler that moves its tiles at every step must not fill the memory.
MAX_COVER = 4


@dataclass(frozen=True, kw_only=True)
class AlignmentState:
    """What Align Latent was asked for; never changed afterwards.

    Attributes:
        features: of the image to restore.
        strength: factor on what the module adds.
        start_percent, end_percent: part of the denoising in which alignment acts.
        mask_B1HW: factor per latent cell in [0, 1], or None for 1 everywhere.
    """

    features: FaithDiffFeatures
    strength: float
    start_percent: float
    end_percent: float
    mask_B1HW: torch.Tensor | None = None


@dataclass(frozen=True)
class AlignmentRun:
    """One sampling run.

    Attributes:
        state: what was asked for.
        sigma_start, sigma_end: alignment acts while sigma_end <= sigma <= sigma_start.
        embedded: the embeddings made so far, by (device, type, image, box), oldest first.
    """

    state: AlignmentState
    sigma_start: float
    sigma_end: float
    embedded: dict[tuple, torch.Tensor] = field(default_factory=dict)


def attach(model: comfy.model_patcher.ModelPatcher, state: AlignmentState) -> comfy.model_patcher.ModelPatcher:
    """A clone of the MODEL with the alignment on it; one that was there before is replaced."""
    model = detach(model)
    model.set_additional_models(KEY, [on_device_of(state.features.model.alignment, model)])
    model.set_attachments(KEY, state)
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, sampler_sample)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model)
    return model


def detach(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """A clone of the MODEL without any alignment of ours."""
    model = model.clone()
    for kind in (WrappersMP.SAMPLER_SAMPLE, WrappersMP.APPLY_MODEL):
        model.remove_wrappers_with_key(kind, KEY)
    model.remove_attachments(KEY)
    model.remove_additional_models(KEY)
    return model


def mask_to_cells(mask: torch.Tensor, features: FaithDiffFeatures) -> torch.Tensor:
    """A host MASK (H, W) or (B, H, W) in [0, 1] averaged over the features' cells: (B, 1, H/8, W/8).

    Raises:
        ValueError: more masks than images.
    """
    mask_B1HW = mask.reshape((-1, 1, *mask.shape[-2:])).float()
    images = features.features_BCHW.shape[0]
    if mask_B1HW.shape[0] not in (1, images):
        raise ValueError(f"expected 1 mask or one for each of the {images} images, got {mask_B1HW.shape[0]}")
    padded = [side * LATENT_CELL_PX for side in latent_size(features.size_px)]
    mask_B1HW = F.interpolate(
        mask_B1HW, size=tuple(features.size_px), mode="bilinear"
    )  # a mask drawn at another size is stretched
    mask_B1HW = F.pad(
        mask_B1HW, (0, padded[1] - features.size_px.width, 0, padded[0] - features.size_px.height), mode="replicate"
    )
    return F.avg_pool2d(mask_B1HW, LATENT_CELL_PX).clamp(0.0, 1.0)


def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    """SAMPLER_SAMPLE wrapper; conditions are already processed in `guider.conds`."""
    state: AlignmentState = guider.model_patcher.get_attachment(KEY)
    check_size(state.features, noise)
    extra_conds = {KEY: comfy.conds.CONDNoiseShape(_cells(state.features))}
    size = SizeConditioning.untiled(state.features)
    for name, conds in guider.conds.items():
        guider.conds[name] = [with_size_conditioning(_with(c, extra_conds), size, guider.inner_model) for c in conds]
    sampling = guider.inner_model.model_sampling  # asked now: a node behind Align Latent may have replaced it
    start, end = (float(sampling.percent_to_sigma(percent)) for percent in (state.start_percent, state.end_percent))
    run = AlignmentRun(state, start, end)
    return executor(guider, sigmas, _with_run(extra_args, run), callback, noise, *args, **kwargs)


def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006 (host's signature)
    """APPLY_MODEL wrapper."""
    cells_B3HW: torch.Tensor | None = kwargs.pop(KEY, None)
    run: AlignmentRun | None = transformer_options.get(KEY)
    if run is not None:
        model = executor.class_obj
        if cells_B3HW is None:  # a prompt that a node encodes during sampling, as Perp-Neg does
            cells_B3HW = _whole_image_cells(run.state.features, x)
            kwargs["y"] = SizeConditioning.untiled(run.state.features).replace_in(kwargs["y"], model)
        module = model.current_patcher.get_additional_models_with_key(KEY)[0].model
        patches = {**transformer_options.get("patches", {})}
        patches["input_block_patch"] = [_patch(module, run, _boxes(cells_B3HW, x)), *patches.get("input_block_patch", [])]
        transformer_options = {**transformer_options, "patches": patches}
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


def _patch(module: AlignmentModule, run: AlignmentRun, rows: list[tuple[int, Box]]):
    """The input_block_patch of one UNet call; `rows` says which part of which image each batch row is."""

    @torch.compiler.disable  # a few small layers once per call; compiled with the UNet they would be compiled anew for every run
    def align(h_BCHW: torch.Tensor, transformer_options: dict[str, Any]) -> torch.Tensor:
        if transformer_options["block"] != ("input", 0) or not _is_active(run, transformer_options):
            return h_BCHW
        embedded_BCHW = torch.cat([_embedded(module, run, image, box, h_BCHW) for image, box in rows])
        delta_BCHW = module(h_BCHW, embedded_BCHW)
        if run.state.strength != 1.0:
            delta_BCHW = delta_BCHW * run.state.strength
        if run.state.mask_B1HW is not None:
            delta_BCHW = delta_BCHW * torch.cat([_cut(run.state.mask_B1HW, image, box) for image, box in rows]).to(delta_BCHW)
        return h_BCHW + delta_BCHW

    return align


def _embedded(module: AlignmentModule, run: AlignmentRun, image: int, box: Box, like: torch.Tensor) -> torch.Tensor:
    """The embedding of one part of one image, (1, model_channels, H, W). Cut first: the release normalises per tile."""
    key = (like.device, like.dtype, image, box)
    if key not in run.embedded:
        part_BCHW = _cut(run.state.features.features_BCHW, image, box)
        embedded_BCHW = module.embed(mm.cast_to_device(part_BCHW, like.device, like.dtype))
        _make_room(run, embedded_BCHW)
        run.embedded[key] = embedded_BCHW
    return run.embedded[key]


def _make_room(run: AlignmentRun, embedded_BCHW: torch.Tensor) -> None:
    """Drops the oldest embeddings when those kept would cover the images more than MAX_COVER times."""
    features_BCHW = run.state.features.features_BCHW
    images, _, height, width = features_BCHW.shape
    limit = MAX_COVER * images * height * width
    cells = embedded_BCHW.shape[-2] * embedded_BCHW.shape[-1]
    while run.embedded and cells + sum(e.shape[-2] * e.shape[-1] for e in run.embedded.values()) > limit:
        del run.embedded[next(iter(run.embedded))]


def _cut(map_BCHW: torch.Tensor, image: int, box: Box) -> torch.Tensor:
    """One image's part of a map; a map of one image serves every image."""
    row = image if map_BCHW.shape[0] > 1 else 0
    return map_BCHW[row : row + 1, :, box.top : box.top + box.height, box.left : box.left + box.width]


def _cells(features: FaithDiffFeatures) -> torch.Tensor:
    """int32 (B, 3, H, W): image, row and column of every cell of the features."""
    images, _, height, width = features.features_BCHW.shape
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.int32) for n in (images, height, width)), indexing="ij")
    return torch.stack(axes, dim=1)


def _boxes(cells_B3HW: torch.Tensor, x_BCHW: torch.Tensor) -> list[tuple[int, Box]]:
    """Per batch row, which image and which box of its features the row is.

    Raises:
        ValueError: another node cut or scaled the latent without the condition beside it, or other than by boxes.
    """
    size = Size(*x_BCHW.shape[-2:])
    cells_B3HW = cells_B3HW.cpu()
    corners_B3 = cells_B3HW[:, :, 0, 0]
    offsets = torch.meshgrid(*(torch.arange(n, dtype=cells_B3HW.dtype) for n in (1, *size)), indexing="ij")
    boxes_B3HW = corners_B3[:, :, None, None] + torch.cat(offsets).unsqueeze(0)
    if cells_B3HW.shape[0] != x_BCHW.shape[0] or not torch.equal(cells_B3HW, boxes_B3HW):
        raise ValueError(
            f"expected LQ features for a latent of {x_BCHW.shape[0]} x {size} cells, got {cells_B3HW.shape[0]} x "
            f"{Size(*cells_B3HW.shape[-2:])}; another node tiles or scales the latent in a way that FaithDiff cannot "
            "follow: bypass it, or use FaithDiff Sampler's tiles"
        )
    return [(image, Box(top, left, *size)) for image, top, left in corners_B3.tolist()]


def _whole_image_cells(features: FaithDiffFeatures, x_BCHW: torch.Tensor) -> torch.Tensor:
    """The map for a call that brought none: the rows are whole images, in order."""
    cells_B3HW = _cells(features)
    return cells_B3HW.repeat(-(-x_BCHW.shape[0] // cells_B3HW.shape[0]), 1, 1, 1)[: x_BCHW.shape[0]]


def _is_active(run: AlignmentRun, transformer_options: dict[str, Any]) -> bool:
    if run.state.start_percent == 0.0 and run.state.end_percent == 1.0:
        return True  # without asking the device for its sigma
    return run.sigma_end <= float(transformer_options["sigmas"][0]) <= run.sigma_start


def _with(cond: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {**cond, "model_conds": {**cond["model_conds"], **extra}}


def _with_run(extra_args: dict[str, Any], run: AlignmentRun) -> dict[str, Any]:
    model_options = extra_args["model_options"]
    transformer_options = {**model_options.get("transformer_options", {}), KEY: run}
    return {**extra_args, "model_options": {**model_options, "transformer_options": transformer_options}}
