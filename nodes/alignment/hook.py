"""The hook: how the alignment module gets into the host's SDXL UNet.

Two keyed wrappers and one additional model ride on the MODEL, so that clones, LoRA, ControlNet and other packs' patches compose:

* SAMPLER_SAMPLE, once per run: gives every prompt a map of *cells*, int32 (B, 3, H, W): which image, row and column of the
  features belongs to each latent cell. Whoever cuts conditions into areas, tiles or batches cuts the map with them, and integers
  are never rounded to half precision. Also writes SDXL's size conditioning, and opens the run's cache.
* APPLY_MODEL, once per UNet call: reads the map back, looks the alignment module up for the device at hand, and puts a patch
  (`patch.py`) before all others at ("input", 0), right after the UNet's first convolution and before the skip is
  stored (official unet_2d_condition_vae_extension.py:571-579). The patch is there at every step, acting or not: a compiled UNet
  must see the same options throughout a run.

Shapes: B batch, C channels, H and W latent size.
"""

from __future__ import annotations

from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_patcher
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP, get_all_wrappers

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size, latent_size
from ..seam.bundle import FaithDiffFeatures, check_size
from ..seam.host import on_device_of
from .patch import KEY, AlignmentRun, AlignmentState, Embeddings, alignment_patch
from .size_conditioning import SizeConditioning, with_size_conditioning


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


def aligned(conds: list[dict[str, Any]], features: FaithDiffFeatures, model: comfy.model_base.SDXL) -> list[dict[str, Any]]:
    """Copies of processed conditions with the map of cells and the size conditioning of the whole image."""
    cells = comfy.conds.CONDNoiseShape(_cells(features))
    size = SizeConditioning.untiled(features)
    with_cells = [{**cond, "model_conds": {**cond["model_conds"], KEY: cells}} for cond in conds]
    return [with_size_conditioning(cond, size, model) for cond in with_cells]


def sampler_sample(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    """SAMPLER_SAMPLE wrapper."""
    state: AlignmentState = guider.model_patcher.get_attachment(KEY)
    check_size(state.features, noise)
    for name, conds in guider.conds.items():
        guider.conds[name] = aligned(conds, state.features, guider.inner_model)
    sampling = guider.inner_model.model_sampling  # asked now: a node behind FaithDiff Align Latent may have replaced it
    start, end = (float(sampling.percent_to_sigma(percent)) for percent in (state.start_percent, state.end_percent))
    run = AlignmentRun(state, start, end, Embeddings(state.features.features_BCHW))
    return executor(guider, sigmas, _with_run(extra_args, run), callback, noise, *args, **kwargs)


def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006 (host's signature)
    """APPLY_MODEL wrapper."""
    cells_B3HW: torch.Tensor | None = kwargs.pop(KEY, None)
    run: AlignmentRun | None = transformer_options.get(KEY)
    if run is not None:
        model = executor.class_obj
        if cells_B3HW is None:  # a prompt that a node encodes during sampling, as Perp-Neg does
            cells_B3HW = _full_image_cells(run.state.features, x)
            kwargs["y"] = SizeConditioning.untiled(run.state.features).replace_in(kwargs["y"], model)
        module = model.current_patcher.get_additional_models_with_key(KEY)[0].model
        rows = _boxes(cells_B3HW, x)
        comes_from_x = c_concat is None and _only_x_enters(control, transformer_options)
        prompts = _repeats(x, rows, len(transformer_options.get("cond_or_uncond", (0,)))) if comes_from_x else 1
        patches = {**transformer_options.get("patches", {})}
        patch = alignment_patch(module, run, rows, prompts)
        patches["input_block_patch"] = [patch, *patches.get("input_block_patch", [])]
        transformer_options = {**transformer_options, "patches": patches}
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


def _only_x_enters(control: dict[str, list] | None, transformer_options: dict[str, Any]) -> bool:
    """Whether the UNet's first features are made of nothing but the latent.

    A T2I-Adapter may add to them before us (the host takes the last of the list first), and other nodes' wrappers around the
    network may change its input.
    """
    added = (control or {}).get("input") or [None]
    return added[-1] is None and not get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)


def _repeats(x_BCHW: torch.Tensor, rows: list[tuple[int, Box]], prompts: int) -> int:
    """`prompts`, where each prompt's rows are the same parts of the same latent, else 1.

    The host stacks the batch once per prompt; the comparison (4 channels, 0.01 % of the UNet's work) is for nodes that change it
    on the way.
    """
    if len(rows) % prompts:
        return 1
    first = len(rows) // prompts
    same_parts = all(rows[i : i + first] == rows[:first] for i in range(first, len(rows), first))
    same = same_parts and all(torch.equal(chunk, x_BCHW[:first]) for chunk in x_BCHW.split(first)[1:])
    return prompts if same else 1


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
        raise ValueError(cut_apart(x_BCHW, cells_B3HW))
    return [(image, Box(top, left, *size)) for image, top, left in corners_B3.tolist()]


def cut_apart(x_BCHW: torch.Tensor, cells_B3HW: torch.Tensor) -> str:
    """The message for a latent that was cut or scaled without the map beside it."""
    wanted, got = (Size(*map_BCHW.shape[-2:]) for map_BCHW in (x_BCHW, cells_B3HW))
    return (
        f"expected LQ features for a latent of {x_BCHW.shape[0]} x {wanted} cells, got {cells_B3HW.shape[0]} x {got}; another "
        "node tiles or scales the latent in a way that FaithDiff cannot follow: bypass it, or use FaithDiff Sampler's tiles"
    )


def _full_image_cells(features: FaithDiffFeatures, x_BCHW: torch.Tensor) -> torch.Tensor:
    """The map for a call that brought none: the rows are whole images, in order."""
    cells_B3HW = _cells(features)
    return cells_B3HW.repeat(-(-x_BCHW.shape[0] // cells_B3HW.shape[0]), 1, 1, 1)[: x_BCHW.shape[0]]


def _with_run(extra_args: dict[str, Any], run: AlignmentRun) -> dict[str, Any]:
    model_options = extra_args["model_options"]
    transformer_options = {**model_options.get("transformer_options", {}), KEY: run}
    return {**extra_args, "model_options": {**model_options, "transformer_options": transformer_options}}
