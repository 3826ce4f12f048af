"""ControlNets in tiles: each tile gets its part of the hint, which the host alone would stretch over every tile."""

from __future__ import annotations

import copy
from typing import NamedTuple

import comfy.controlnet
import comfy.utils
import torch

from ...faithdiff_core.geometry import Box, Size

HOST_CLASSES = (comfy.controlnet.ControlNet, comfy.controlnet.ControlLora, comfy.controlnet.T2IAdapter)
"""The classes that the host makes for SDXL. Their objects hold the hint as `cond_hint_original` and what is made of it in
`cond_hint` and, in adapters, `control_input`."""

ScaledHints = dict[tuple, tuple[torch.Tensor, torch.Tensor]]


class HintPart(NamedTuple):
    """A part of the hint of one image of the batch; the box is in latent cells of what the hint is stretched over."""

    image: int
    box: Box


def cut_control(
    control: comfy.controlnet.ControlBase, parts: list[HintPart], size: Size, scaled: ScaledHints
) -> comfy.controlnet.ControlBase:
    """A copy of a control, and of all behind it, whose hint has one row for each part. The user's own is not changed.

    Args:
        control: as the host prepared it for the run.
        parts: all of one size, in the order of the batch rows.
        size: in latent cells, of what the host stretches the whole hint over: the image, or the area of an area prompt.
        scaled: keeps hints that had to be stretched, for the next tile.

    Raises:
        ValueError: a control of another class.
    """
    if type(control) not in HOST_CLASSES or control.latent_format is not None:
        raise ValueError(
            f"expected a ControlNet, Control-LoRA or T2I-Adapter of ComfyUI's own for sampling in tiles, got "
            f"{type(control).__name__}, whose hint FaithDiff cannot cut; load it with Load ControlNet Model, set tile_size to "
            "0, or leave it out"
        )
    cut = copy.copy(control)  # shares the network and what the host prepared for the run
    cut.cond_hint_original = _rows(control, parts, size, scaled)
    cut.cond_hint = None  # the host then makes it anew, and with it an adapter's `control_input`
    if control.previous_controlnet is not None:
        cut.previous_controlnet = cut_control(control.previous_controlnet, parts, size, scaled)
    clones = getattr(control, "multigpu_clones", None)  # hosts since 0.23
    if clones:
        cut.multigpu_clones = {device: cut_control(clone, parts, size, scaled) for device, clone in clones.items()}
    return cut


def _rows(control: comfy.controlnet.ControlBase, parts: list[HintPart], size: Size, scaled: ScaledHints) -> torch.Tensor:
    hint_BCHW = _stretched(control, size, scaled)
    ratio = control.compression_ratio
    rows = []
    for image, box in parts:
        row_CHW = hint_BCHW[image % hint_BCHW.shape[0]]  # fewer hints than images are repeated, as the host does
        top, left = box.top * ratio, box.left * ratio
        rows.append(row_CHW[:, top : top + box.height * ratio, left : left + box.width * ratio])
    return torch.stack(rows)


def _stretched(control: comfy.controlnet.ControlBase, size: Size, scaled: ScaledHints) -> torch.Tensor:
    """The whole hint over `size`, by the host's own rule: `upscale_algorithm`, cut to the proportions around its middle."""
    hint_BCHW: torch.Tensor = control.cond_hint_original  # pyright: ignore[reportAssignmentType]  (None until a node sets it)
    wanted = tuple(side * control.compression_ratio for side in size)
    if tuple(hint_BCHW.shape[-2:]) == wanted:
        return hint_BCHW
    key = (id(hint_BCHW), wanted, control.upscale_algorithm)
    if key not in scaled:
        stretched = comfy.utils.common_upscale(hint_BCHW, wanted[1], wanted[0], control.upscale_algorithm, "center")
        scaled[key] = (hint_BCHW, stretched)  # the first is held so that its id stays its own
    return scaled[key][1]
