"""FaithDiff Upscale To Target: an image at exactly the size that is asked for, by Lanczos or by a model and then Lanczos."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..faithdiff_core.geometry import Size
from ..faithdiff_core.photo.alpha import visible_colors
from .seam.host import show_text
from .seam.inputs import FROM_A_VAE, checked
from .seam.lanczos import lanczos
from .seam.types import PHOTO_CATEGORY, SEARCHED

MAX_SIDE_PX = 16384
"""The host's own limit for widths and heights (H nodes.py, MAX_RESOLUTION)."""
MEGAPIXEL = 1024 * 1024
"""As the host counts (H comfy_extras/nodes_post_processing.py, ImageScaleToTotalPixels)."""


class FaithDiffUpscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffUpscale",
            display_name="FaithDiff Upscale To Target",
            category=PHOTO_CATEGORY,
            description="Enlarges an image to exactly the size you want, before FaithDiff Encode LQ Features: by Lanczos, or by "
            "an upscale model and then Lanczos. Warns where the target is smaller than the image. Keeps alpha, and colours under "
            "it out of what is seen.",
            search_aliases=[*SEARCHED, "resize", "scale image", "enlarge", "megapixels", "longest side"],
            inputs=[
                io.Image.Input("image", tooltip="The image as it is, or a batch of images of one size."),
                io.DynamicCombo.Input("target", options=_options(), tooltip="How the new size is given; the shape stays."),
                io.UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip="From Load Upscale Model. It enlarges first, by its own factor; Lanczos then brings the size. Not "
                    "used where the image gets smaller. The release enlarges by Lanczos alone.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="The image at the new size, for FaithDiff Encode LQ Features and as FaithDiff Color Fix's reference."
                ),
                io.Int.Output(display_name="width", tooltip="Its width in pixels."),
                io.Int.Output(display_name="height", tooltip="Its height in pixels."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(cls, image: torch.Tensor, target: dict[str, Any], upscale_model: Any = None) -> io.NodeOutput:
        old = Size(*image.shape[1:3])
        size = target_size(old, target)
        if size.height < old.height or size.width < old.width:
            upscale_model = None
        if upscale_model is not None:
            _check_side(Size(*(round(side * upscale_model.scale) for side in old)), "from the upscale model")
        result_BHWC = image.new_empty((image.shape[0], *size, image.shape[3]))
        bar = comfy.utils.ProgressBar(image.shape[0])
        for i in range(image.shape[0]):  # one at a time: a batch of frames needs no more memory than a frame and the result
            mm.throw_exception_if_processing_interrupted()
            if not torch.isfinite(image[i]).all():
                raise ValueError(f"expected an image of finite numbers, got NaN or infinity in image {i + 1}; {FROM_A_VAE}")
            color_HWC, alpha_HWC = visible_colors(image[i]), image[i, ..., 3:]
            if upscale_model is not None:
                color_HWC = _enlarged(color_HWC, upscale_model)
            result_BHWC[i, ..., :3] = lanczos(color_HWC, size).clamp_(0.0, 1.0)
            if alpha_HWC.shape[-1]:
                result_BHWC[i, ..., 3:] = lanczos(alpha_HWC, size).clamp_(0.0, 1.0)
            if upscale_model is None:  # with one the host draws its own bar for each image
                bar.update_absolute(i + 1)
        lines = facts(old, size)
        show_text(cls, lines)
        return io.NodeOutput(result_BHWC, size.width, size.height, ui=ui.PreviewText("\n".join(lines)))


def _options() -> list[io.DynamicCombo.Option]:
    factor = io.Float.Input(
        "factor", default=2.0, min=0.01, max=64.0, step=0.25, round=0.001, tooltip="Times the image's width and height."
    )
    megapixels = io.Float.Input(
        "megapixels",
        default=4.0,
        min=0.01,
        max=256.0,
        step=0.5,
        round=0.001,
        tooltip="Size of the result in megapixels of 1024 x 1024: 4 is as large as 2048 x 2048.",
    )
    sides = [
        io.Int.Input(name, default=default, min=1, max=MAX_SIDE_PX, tooltip=tooltip)
        for name, default, tooltip in (
            ("longest_side", 2048, "Pixels of the longer side of the result; the other follows."),
            ("shortest_side", 1024, "Pixels of the shorter side of the result; the other follows."),
        )
    ]
    parts = {"scale factor": factor, "megapixels": megapixels, "longest side": sides[0], "shortest side": sides[1]}
    return [io.DynamicCombo.Option(name, [part]) for name, part in parts.items()]


def target_size(size_px: Size, target: dict[str, Any]) -> Size:
    """The size asked for, each side rounded and at least 1 px.

    Args:
        size_px: of the image.
        target: the chosen way in "target", and its number under its own name.

    Raises:
        ValueError: an unknown way; a side of more than 16384 px.
    """
    way = target["target"]
    if way == "scale factor":
        factor = target["factor"]
    elif way == "megapixels":
        factor = math.sqrt(target["megapixels"] * MEGAPIXEL / math.prod(size_px))
    elif way == "longest side":
        factor = target["longest_side"] / max(size_px)
    elif way == "shortest side":
        factor = target["shortest_side"] / min(size_px)
    else:
        raise ValueError(f"expected a target of scale factor, megapixels, longest side or shortest side, got {way!r}; choose one")
    size = Size(*(max(1, math.floor(side * factor + 0.5)) for side in size_px))
    _check_side(size, f"from {size_px}")
    return size


def facts(old: Size, size: Size) -> list[str]:
    """What the node shows: both sizes, and a warning where the picture gets smaller."""
    shown = [f"{old} px to {size} px"]
    if math.prod(size) < math.prod(old):
        shown.append(
            f"Warning: this target shrinks the picture to {math.sqrt(math.prod(size) / math.prod(old)):.2g}x, and fine detail is "
            "lost. To enlarge, choose scale factor 2, or a larger number."
        )
    return shown


def _check_side(size: Size, whence: str) -> None:
    if max(size) > MAX_SIDE_PX:
        raise ValueError(f"expected a result of at most {MAX_SIDE_PX} px a side, got {size} {whence}; choose a smaller target")


def _enlarged(color_HWC: torch.Tensor, upscale_model: Any) -> torch.Tensor:
    """By the model's own factor, in the host's tiles, which get smaller when memory runs out."""
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel  # here, because it brings in all its architectures

    return ImageUpscaleWithModel.execute(upscale_model, color_HWC.unsqueeze(0)).args[0][0].to(color_HWC.device)
