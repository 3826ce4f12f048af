"""FaithDiff Load Photo: a picture's file as it is meant to look, and all that goes back into the result."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from comfy_api.latest import io, ui

from ..faithdiff_core.photo.curves import read_profile
from ..faithdiff_core.photo.photo import Photo, to_unit
from .photos.bundle import FaithDiffPhoto
from .photos.files import fingerprint, load, photo_names, photo_path
from .seam.host import show_text
from .seam.inputs import UNPAINTED_PX, checked
from .seam.types import PHOTO_CATEGORY, SEARCHED, FaithDiffPhotoType


class FaithDiffLoadPhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffLoadPhoto",
            display_name="FaithDiff Load Photo",
            category=PHOTO_CATEGORY,
            description="Loads a picture as it is meant to look: upright, its colours taken from its profile to sRGB, 16 bits "
            "kept. Profile, EXIF, XMP, DPI and alpha go on to FaithDiff Save Photo. A cut file is an error, not a grey area.",
            search_aliases=[*SEARCHED, "load image", "open photo", "upload", "tiff", "16 bit", "icc", "color profile", "exif"],
            inputs=[
                io.Combo.Input(
                    "image",
                    options=photo_names(),
                    upload=io.UploadType.image,
                    image_folder=io.FolderType.input,
                    tooltip="A picture in ComfyUI's input folder: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, and HEIC where "
                    "pillow-heif is installed. Upload one or drop it here. faithdiff_demo.png comes with the pack.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="The picture in sRGB, upright, without alpha: where it was invisible, the colours around."
                ),
                io.Mask.Output(tooltip="Where the picture is transparent. 64 x 64 px of 0 if it is opaque, as Load Image's."),
                FaithDiffPhotoType.Output(
                    display_name="photo", tooltip="Profile, EXIF, XMP, DPI, alpha, bit depth and name, for FaithDiff Save Photo."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        try:
            photo_path(image)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, image: str) -> tuple[str, int, int]:
        return fingerprint(image)

    @classmethod
    @checked
    def execute(cls, image: str) -> io.NodeOutput:
        photo = load(image)
        device = mm.intermediate_device()
        color_HWC = torch.from_numpy(to_unit(photo.color_HWC)).to(device)
        alpha_HW = None if photo.alpha_HW is None else torch.from_numpy(to_unit(photo.alpha_HW)).to(device)
        unpainted_px = (UNPAINTED_PX, UNPAINTED_PX)
        mask_HW = torch.zeros(unpainted_px, device=device) if alpha_HW is None else 1.0 - alpha_HW
        bundle = FaithDiffPhoto(photo.source, alpha_HW)
        lines = facts(photo)
        show_text(cls, lines)
        return io.NodeOutput(color_HWC[None], mask_HW[None], bundle, ui=ui.PreviewText("\n".join(lines)))


def facts(photo: Photo) -> list[str]:
    """What the node shows: size, depth, colours, and what was not taken as it is."""
    height, width = photo.color_HWC.shape[:2]
    source = photo.source
    parts = [f"{width}x{height} px", f"{source.depth_bits} bit", source.container]
    if source.profile is not None:
        curves = read_profile(source.profile)
        parts.append("sRGB" if curves is not None and curves.is_srgb else "own colour profile")
    parts += [name for name, there in (("alpha", source.has_alpha), ("EXIF", source.exif), ("XMP", source.xmp)) if there]
    return [", ".join(parts), *(f"It {warning}." for warning in photo.warnings)]
