"""What FaithDiff Save Photo and FaithDiff Save Folder share: the inputs that say how, and a picture to a file's bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.cli_args
import folder_paths
import torch
from comfy_api.latest import io, ui

from ...faithdiff_core.geometry import Size
from ...faithdiff_core.photo.write import Output, Written, encode_photo
from ..seam.inputs import FROM_A_VAE
from .bundle import FaithDiffPhoto

AS_SOURCE = "as source"
FORMATS = {AS_SOURCE: None, "PNG": "PNG", "JPEG": "JPEG", "WebP": "WEBP", "TIFF": "TIFF"}
DEPTHS = {AS_SOURCE: None, "8 bit": 8, "16 bit": 16}
PROFILES = {AS_SOURCE: False, "sRGB": True}
SHOWN_BY_BROWSERS = (".png", ".jpg", ".webp")
MAX_PREVIEW_PX = 2048
"""Of those for formats that browsers do not show."""


def output_inputs() -> list[io.Input]:
    """The inputs that say how a result is written."""
    return [
        io.Combo.Input(
            "format",
            options=list(FORMATS),
            default=AS_SOURCE,
            tooltip="PNG where the source's format is none of these. JPEG and WebP hold 8 bits; JPEG holds no alpha.",
        ),
        io.Combo.Input("bit_depth", options=list(DEPTHS), default=AS_SOURCE, tooltip="16 bit: PNG and TIFF only."),
        io.Combo.Input(
            "color_profile",
            options=list(PROFILES),
            default=AS_SOURCE,
            tooltip="as source puts the colours back into the source's profile and embeds it. sRGB is what screens and "
            "web pages expect.",
        ),
        io.Int.Input("quality", default=95, min=1, max=100, tooltip="Of JPEG and WebP; WebP at 100 is without loss."),
        io.Boolean.Input("metadata", default=True, tooltip="Keep the source's EXIF, XMP and DPI."),
        io.Boolean.Input(
            "workflow",
            default=True,
            tooltip="Put this workflow into the file, so that dropping it on ComfyUI opens it again (PNG and WebP). "
            "Switch it off for pictures that you give away.",
        ),
    ]


def output_of(node: Any, choices: Mapping[str, Any]) -> Output:
    """How a result is written, by the values of `output_inputs`.

    Args:
        node: the class that `execute` was called on; its schema asks for the hidden prompt and extra_pnginfo.
        choices: the values by the inputs' names.
    """
    return Output(
        container=FORMATS[choices["format"]],
        depth_bits=DEPTHS[choices["bit_depth"]],
        in_srgb=PROFILES[choices["color_profile"]],
        quality=choices["quality"],
        keep_metadata=choices["metadata"],
        texts=_texts(node) if choices["workflow"] else {},
    )


def _texts(node: Any) -> dict[str, str]:
    """As the host's Save Image embeds them (H nodes.py, SaveImage.save_images)."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    texts = {} if node.hidden.prompt is None else {"prompt": json.dumps(node.hidden.prompt)}
    return texts | {key: json.dumps(value) for key, value in (node.hidden.extra_pnginfo or {}).items()}


def alphas(image: torch.Tensor, photo: FaithDiffPhoto | None, mask: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Alpha (H, W) of each result, or one for all: of the mask, else of the image's own fourth channel, else of its source."""
    size = Size(*image.shape[1:3])
    if mask is not None:
        masks_B1HW = mask.reshape(-1, 1, *mask.shape[-2:]).float()
        if masks_B1HW.shape[0] not in (1, image.shape[0]):
            raise ValueError(f"expected 1 mask or one for each of the {image.shape[0]} images, got {masks_B1HW.shape[0]}")
        if Size(*masks_B1HW.shape[-2:]) != size:
            masks_B1HW = torch.nn.functional.interpolate(masks_B1HW, size=tuple(size), mode="bilinear")
        return list(1.0 - masks_B1HW[:, 0].clamp(0.0, 1.0))
    if image.shape[-1] > 3:
        return list(image[..., 3].float().clamp(0.0, 1.0))
    return [photo.alpha_at(size) if photo else None]


def encoded(image: torch.Tensor, i: int, photo: FaithDiffPhoto | None, alpha_HW: torch.Tensor | None, output: Output) -> Written:
    """Picture `i` of a batch as a file.

    Raises:
        ValueError: it is not finite, or the format cannot hold it.
    """
    color_HWC = image[i, ..., :3].float().cpu()
    if not torch.isfinite(color_HWC).all():
        raise ValueError(f"expected finite numbers in image, got NaN or infinity in image {i + 1}; {FROM_A_VAE}")
    alpha = None if alpha_HW is None else alpha_HW.cpu().numpy()
    return encode_photo(color_HWC.numpy(), alpha, photo.source if photo else None, output)


def shown(paths: list[Path], image: torch.Tensor, notes: list[str]) -> dict[str, Any]:
    """`photos` names the files. `images` is what the page shows: the same, or previews where browsers cannot show them."""
    root = folder_paths.get_output_directory()
    below = os.path.relpath(paths[0].parent, root)
    below = "" if below == "." else below
    photos = [{"filename": path.name, "subfolder": below, "type": "output"} for path in paths]
    told: dict[str, Any] = {"photos": photos}
    if all(path.suffix in SHOWN_BY_BROWSERS for path in paths):
        told["images"] = photos
    else:
        step = -(-max(image.shape[1:3]) // MAX_PREVIEW_PX)
        told |= ui.PreviewImage(image[:, ::step, ::step, :3]).as_dict()
    where = os.path.relpath(paths[0], root)
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    told["text"] = ("\n".join([f"{where}{more}", *(f"{note}." for note in notes)]),)
    return told
