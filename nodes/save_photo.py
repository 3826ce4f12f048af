"""FaithDiff Save Photo: a result as its source was: name, format, bit depth, colour profile, alpha, metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui

from ..faithdiff_core.geometry import Size
from ..faithdiff_core.photo.write import Output, Written, encode_photo
from .photos.bundle import FaithDiffPhoto
from .photos.output import NAME, place_for, write_new
from .seam.host import show_text
from .seam.inputs import FROM_A_VAE, checked, painted
from .seam.types import PHOTO_CATEGORY, SEARCHED, FaithDiffPhotoType

AS_SOURCE = "as source"
FORMATS = {AS_SOURCE: None, "PNG": "PNG", "JPEG": "JPEG", "WebP": "WEBP", "TIFF": "TIFF"}
DEPTHS = {AS_SOURCE: None, "8 bit": 8, "16 bit": 16}
PROFILES = {AS_SOURCE: False, "sRGB": True}
SHOWN_BY_BROWSERS = (".png", ".jpg", ".webp")
MAX_PREVIEW_PX = 2048
"""Of those for formats that browsers do not show."""


class FaithDiffSavePhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffSavePhoto",
            display_name="FaithDiff Save Photo",
            category=PHOTO_CATEGORY,
            description="Saves a result as its source was: name, format, bit depth, colour profile, alpha, EXIF, XMP and DPI. "
            "Never over a file that is there.",
            search_aliases=[*SEARCHED, "save image", "export", "tiff", "jpeg", "webp", "16 bit", "icc", "color profile", "exif"],
            inputs=[
                io.Image.Input("image", tooltip="The finished picture, or a batch: each is saved, with a number."),
                FaithDiffPhotoType.Input(
                    "photo", optional=True, tooltip="From FaithDiff Load Photo. Without it: an 8-bit sRGB PNG without metadata."
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where the result is to be transparent, in place of the photo's own alpha."
                ),
                io.String.Input(
                    "filename",
                    default=NAME,
                    tooltip="Name in ComfyUI's output folder. %name% is the source's; %width%, %height%, %year%, %month% and "
                    "%day% work, too; a / makes folders. If there is such a file, the new one gets a number.",
                ),
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
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: torch.Tensor,
        filename: str,
        format: str,  # noqa: A002 - the input's name
        bit_depth: str,
        color_profile: str,
        quality: int,
        metadata: bool,
        workflow: bool,
        photo: FaithDiffPhoto | None = None,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        output = Output(
            container=FORMATS[format],
            depth_bits=DEPTHS[bit_depth],
            in_srgb=PROFILES[color_profile],
            quality=quality,
            keep_metadata=metadata,
            texts=cls._texts() if workflow else {},
        )
        size = Size(*image.shape[1:3])
        name = photo.source.name if photo else "restored"
        alphas = _alphas(image, photo, painted(mask))
        folder, below, stem = place_for(filename, name, size.width, size.height)
        bar, paths, notes = comfy.utils.ProgressBar(image.shape[0]), [], []
        for i in range(image.shape[0]):
            mm.throw_exception_if_processing_interrupted()
            written = _encoded(image, i, photo, alphas[min(i, len(alphas) - 1)], output)
            number = f"_{i + 1:04d}" if image.shape[0] > 1 else ""
            paths.append(write_new(folder, stem + number, written.suffix, written.data))
            notes += [note for note in written.notes if note not in notes]
            bar.update_absolute(i + 1)
        shown = _shown(paths, below, image, notes)
        show_text(cls, shown["text"])
        return io.NodeOutput(ui=shown)

    @classmethod
    def _texts(cls) -> dict[str, str]:
        """As the host's Save Image embeds them (H nodes.py, SaveImage.save_images)."""
        if comfy.cli_args.args.disable_metadata:
            return {}
        texts = {} if cls.hidden.prompt is None else {"prompt": json.dumps(cls.hidden.prompt)}
        return texts | {key: json.dumps(value) for key, value in (cls.hidden.extra_pnginfo or {}).items()}


def _alphas(image: torch.Tensor, photo: FaithDiffPhoto | None, mask: torch.Tensor | None) -> list[torch.Tensor | None]:
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


def _encoded(image: torch.Tensor, i: int, photo: FaithDiffPhoto | None, alpha_HW: torch.Tensor | None, output: Output) -> Written:
    color_HWC = image[i, ..., :3].float().cpu()
    if not torch.isfinite(color_HWC).all():
        raise ValueError(f"expected finite numbers in image, got NaN or infinity in image {i + 1}; {FROM_A_VAE}")
    alpha = None if alpha_HW is None else alpha_HW.cpu().numpy()
    return encode_photo(color_HWC.numpy(), alpha, photo.source if photo else None, output)


def _shown(paths: list[Path], below: str, image: torch.Tensor, notes: list[str]) -> dict[str, Any]:
    """`photos` names the files. `images` is what the page shows: the same, or previews where browsers cannot show them."""
    photos = [{"filename": path.name, "subfolder": below, "type": "output"} for path in paths]
    shown: dict[str, Any] = {"photos": photos}
    if all(path.suffix in SHOWN_BY_BROWSERS for path in paths):
        shown["images"] = photos
    else:
        step = -(-max(image.shape[1:3]) // MAX_PREVIEW_PX)
        shown |= ui.PreviewImage(image[:, ::step, ::step, :3]).as_dict()
    where = os.path.relpath(paths[0], folder_paths.get_output_directory())
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    shown["text"] = ("\n".join([f"{where}{more}", *(f"{note}." for note in notes)]),)
    return shown
