"""FaithDiff Load Photo: a picture's file as it is meant to look, and all that goes back into the result."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .photos.files import fingerprint, load, photo_names, photo_path
from .photos.loaded import facts, given
from .seam.host import show_text
from .seam.inputs import checked
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
        lines = facts(photo)
        show_text(cls, lines)
        return io.NodeOutput(*given(photo), ui=ui.PreviewText("\n".join(lines)))
