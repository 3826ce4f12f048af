"""FaithDiff Save Photo: a result as its source was: name, format, bit depth, colour profile, alpha, metadata."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io

from ..faithdiff_core.geometry import Size
from .photos.bundle import FaithDiffPhoto
from .photos.output import NAME, place_for, write_new
from .photos.saving import alphas, encoded, output_inputs, output_of, shown
from .seam.host import show_text
from .seam.inputs import checked, painted
from .seam.types import PHOTO_CATEGORY, SEARCHED, FaithDiffPhotoType


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
                *output_inputs(),
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
        choices = {"format": format, "bit_depth": bit_depth, "color_profile": color_profile, "quality": quality}
        output = output_of(cls, {**choices, "metadata": metadata, "workflow": workflow})
        size = Size(*image.shape[1:3])
        name = photo.source.name if photo else "restored"
        planes = alphas(image, photo, painted(mask))
        folder, stem = place_for(filename, name, size.width, size.height)
        bar, paths, notes = comfy.utils.ProgressBar(image.shape[0]), [], []
        for i in range(image.shape[0]):
            mm.throw_exception_if_processing_interrupted()
            written = encoded(image, i, photo, planes[min(i, len(planes) - 1)], output)
            number = f"_{i + 1:04d}" if image.shape[0] > 1 else ""
            paths.append(write_new(folder, stem + number, written.suffix, written.data))
            notes += [note for note in written.notes if note not in notes]
            bar.update_absolute(i + 1)
        told = shown(paths, image, notes)
        show_text(cls, told["text"])
        return io.NodeOutput(ui=told)
