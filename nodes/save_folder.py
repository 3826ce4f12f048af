"""FaithDiff Save Folder: a result under its source's name and sub-folder, which says that this picture is done."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io

from .folder.state import read_state
from .folder.turn import FaithDiffFolder, put
from .photos.saving import alphas, encoded, output_inputs, output_of, shown
from .seam.host import show_text
from .seam.inputs import checked, painted
from .seam.types import PHOTO_CATEGORY, SEARCHED, FaithDiffFolderType


class FaithDiffSaveFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffSaveFolder",
            display_name="FaithDiff Save Folder",
            category=PHOTO_CATEGORY,
            description="Saves a result under its source's name, in a sub-folder of the same name, with profile, alpha, EXIF, "
            "XMP and DPI. A picture with a result is done. Never over a file that this pack has not made.",
            search_aliases=[*SEARCHED, "batch", "folder", "directory", "save images", "export", "bulk", "tiff", "jpeg", "16 bit"],
            inputs=[
                io.Image.Input("image", tooltip="The finished picture. One: a folder has one result for each of its pictures."),
                FaithDiffFolderType.Input(
                    "folder", tooltip="From FaithDiff Load Folder: where the result goes, and what its source's file had."
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where the result is to be transparent, in place of the source's own alpha."
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
        folder: FaithDiffFolder,
        format: str,  # noqa: A002 - the input's name
        bit_depth: str,
        color_profile: str,
        quality: int,
        metadata: bool,
        workflow: bool,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if image.shape[0] != 1:
            raise ValueError(f"expected one picture, got a batch of {image.shape[0]}; save it with FaithDiff Save Photo")
        choices = {"format": format, "bit_depth": bit_depth, "color_profile": color_profile, "quality": quality}
        output = output_of(cls, {**choices, "metadata": metadata, "workflow": workflow})
        written = encoded(image, 0, folder.photo, alphas(image, folder.photo, painted(mask))[0], output)
        path = put(folder, written)
        state = read_state(folder.job)
        numbers = state.numbers()
        comfy.utils.ProgressBar(numbers["count"]).update_absolute(numbers["done"])
        told = shown([path], image, list(written.notes))
        told["text"] = ("\n".join([*told["text"], *state.lines()]),)
        told["faithdiff_folder"] = [{**numbers, "loader": folder.loader}]
        show_text(cls, told["text"])
        return io.NodeOutput(ui=told)
