"""FaithDiff Before / After: two pictures under a slider on the node, and side by side as an output."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..faithdiff_core.geometry import Size
from ..faithdiff_core.photo.alpha import visible_colors
from .seam.inputs import FROM_A_VAE, checked
from .seam.lanczos import lanczos
from .seam.types import PHOTO_CATEGORY

DIRECTIONS = ("right", "down")
"""Where the after is put. Down is for wide pictures."""
GAP_FRAC = 1 / 256
"""Width of the white line between both, of the after's longer side: 8 px at 2048 px, seen and no more."""
MIN_GAP_PX = 2
RGBA = 4
"""Channels that a PNG holds; there are no more in a preview or in the output."""


class FaithDiffCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffCompare",
            display_name="FaithDiff Before / After",
            category=PHOTO_CATEGORY,
            description="Shows two pictures under a slider, to be compared pixel by pixel: zoom with the wheel, drag to move. "
            "Also gives them side by side, to save.",
            search_aliases=["compare", "before after", "image compare", "slider", "side by side", "difference", "a/b"],
            inputs=[
                io.Image.Input(
                    "before",
                    tooltip="The picture as it was. It is brought to the size of the after, so that they lie pixel on pixel.",
                ),
                io.Image.Input("after", tooltip="The result. Batches: as many pictures in both, or a single one in one of them."),
                io.Combo.Input(
                    "direction",
                    options=list(DIRECTIONS),
                    default=DIRECTIONS[0],
                    optional=True,
                    tooltip="Where the after lies in the output: right of the before, or below it, which suits wide pictures.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="side_by_side",
                    tooltip="Both in one picture, the before first, with a thin white line between them.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(cls, before: torch.Tensor, after: torch.Tensor, direction: str = DIRECTIONS[0]) -> io.NodeOutput:
        number = _number_of_pairs(before, after)
        size, channels = Size(*after.shape[1:3]), min(RGBA, max(before.shape[3], after.shape[3]))
        first, second, whole = _places(size, direction)
        both_BHWC = after.new_ones((number, *whole, channels), dtype=torch.float32)
        bar = comfy.utils.ProgressBar(number)
        shown: dict[str, list] = {"before": [], "after": []}
        for i in range(number):  # one at a time: an enlarged batch of frames is never held beside the result
            mm.throw_exception_if_processing_interrupted()
            for name, image, place in (("before", before, first), ("after", after, second)):
                single = image.shape[0] == 1
                if single and i > 0:  # drawn and saved once
                    both_BHWC[i][place] = both_BHWC[0][place]
                    continue
                picture_HWC = _at_size(image[0 if single else i, ..., :RGBA], size, f"{name} {i + 1}")
                both_BHWC[i][place][..., : picture_HWC.shape[2]] = picture_HWC
                shown[name] += ui.PreviewImage(picture_HWC.unsqueeze(0)).values
            bar.update_absolute(i + 1)
        return io.NodeOutput(both_BHWC, ui=shown)


def _number_of_pairs(before: torch.Tensor, after: torch.Tensor) -> int:
    """Raises ValueError where pictures would be left without a partner."""
    counts = {before.shape[0], after.shape[0]}
    if len(counts) > 1 and 1 not in counts:
        raise ValueError(
            f"expected as many pictures in before as in after, or one in one of them, got {before.shape[0]} and "
            f"{after.shape[0]}; connect batches that belong together"
        )
    return max(counts)


def _places(size: Size, direction: str) -> tuple[tuple[slice, slice], tuple[slice, slice], Size]:
    """Rows and columns of the before and of the after in the picture that shows both, and that picture's size."""
    gap = max(MIN_GAP_PX, round(max(size) * GAP_FRAC))
    rows, columns = slice(0, size.height), slice(0, size.width)
    if direction == "down":
        return (rows, columns), (slice(size.height + gap, None), columns), Size(2 * size.height + gap, size.width)
    return (rows, columns), (rows, slice(size.width + gap, None)), Size(size.height, 2 * size.width + gap)


def _at_size(image_HWC: torch.Tensor, size: Size, name: str) -> torch.Tensor:
    """The picture at a size, fp32 in [0, 1]; raises ValueError where it is not finite."""
    image_HWC = image_HWC.float()
    if not torch.isfinite(image_HWC).all():
        raise ValueError(f"expected pictures of finite numbers, got NaN or infinity in {name}; {FROM_A_VAE}")
    if Size(*image_HWC.shape[:2]) != size:
        color_HWC = lanczos(visible_colors(image_HWC), size)
        image_HWC = torch.cat((color_HWC, lanczos(image_HWC[..., 3:], size)), dim=-1) if image_HWC.shape[2] == RGBA else color_HWC
    return image_HWC.clamp(0.0, 1.0)
