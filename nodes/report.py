"""FaithDiff Report: how faithful the result is to what went in, in words and as a map."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui

from ..faithdiff_core.fidelity.consistency import color_drift, compared_size, consistency
from ..faithdiff_core.fidelity.heat_map import draw
from ..faithdiff_core.fidelity.seams import find_seams, seam_map
from ..faithdiff_core.fidelity.ssim import psnr_db, ssim
from ..faithdiff_core.geometry import Box, Size, latent_size, padded_size_px
from .reporting.text import Figures, report_lines
from .seam.inputs import checked
from .seam.types import CATEGORY
from .tile_prompts import grid_inputs
from .tiles.run import TileSettings

# The last colour of each map. Fixed, so that maps of two runs can be compared.
MOST_ERROR_U8, MOST_DE00, MOST_SEAM_RATIO = 32, 10, 8
MAP_SCALES = {
    "consistency": f"mean difference of the channels from the input; dark 0, yellow {MOST_ERROR_U8} of 255 and more",
    "color": f"difference of coarse colours (dE00); dark 0, yellow {MOST_DE00} and more",
    "seams": f"jumps at the borders of tiles over those elsewhere; dark 0, yellow {MOST_SEAM_RATIO} and more",
}


class FaithDiffReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffReport",
            display_name="FaithDiff Report",
            category=CATEGORY,
            description="Says how faithful the result is to the degraded image: whether it still shows the same, whether "
            "colours drifted, whether tiles left seams. As text and as a heat map.",
            search_aliases=["psnr", "ssim", "compare", "metrics", "heat map", "seams", "fidelity"],
            inputs=[
                io.Image.Input("image", tooltip="The result, from FaithDiff Color Fix."),
                io.Image.Input("reference", tooltip="The degraded image, as loaded or enlarged; one, or one for each image."),
                io.Combo.Input(
                    "map",
                    options=list(MAP_SCALES),
                    default="consistency",
                    tooltip="What the heat map shows: where the result departs from the input, where colours drifted, or the "
                    "borders of tiles.",
                ),
                *grid_inputs(),
                io.Float.Input(
                    "scale",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.5,
                    round=0.001,
                    advanced=True,
                    tooltip="By what factor the degraded image was enlarged. 0 takes it from the sizes, and 4, the release's, if "
                    "the reference was enlarged already.",
                ),
                io.Image.Input(
                    "truth",
                    optional=True,
                    tooltip="The undegraded image at the result's size, if there is one: for PSNR and SSIM.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The report, as the node shows it."),
                io.Image.Output(display_name="heat_map", tooltip="The map over the result in grey, of the result's size."),
            ],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: torch.Tensor,
        reference: torch.Tensor,
        map: str,  # noqa: A002 - the input's name
        tile_size: int,
        tile_overlap: float,
        scale: float,
        truth: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if map not in MAP_SCALES:
            raise ValueError(f"expected a map of {', '.join(MAP_SCALES)}, got {map!r}; choose one")
        settings = TileSettings(tile_size_px=tile_size, tile_overlap_frac=tile_overlap, tile_batch=0)
        image = _cropped(image, reference if truth is None else truth)
        size_px = Size(*image.shape[1:3])
        for name, other in (("reference", reference), ("truth", truth)):
            if other is not None and other.shape[0] not in (1, image.shape[0]):
                raise ValueError(f"expected 1 {name} or one for each of the {image.shape[0]} images, got {other.shape[0]}")
        if truth is not None and Size(*truth.shape[1:3]) != size_px:
            raise ValueError(f"expected a truth of the image's {size_px} px, got {Size(*truth.shape[1:3])}; scale it to that")
        compared_px = compared_size(size_px, Size(*reference.shape[1:3]), scale)
        boxes = settings.grid(latent_size(size_px), settings.tile_lat)
        heat_map_BHWC = torch.empty(*image.shape[:3], 3, device=image.device)
        bar, figures = comfy.utils.ProgressBar(image.shape[0]), []
        for i in range(image.shape[0]):  # one at a time: a batch of frames needs no more memory than a frame and the result
            mm.throw_exception_if_processing_interrupted()
            figures.append(_figures(i, image, reference, truth, compared_px, boxes))
            map_HW = _map(figures[-1], map).to(image.device)
            draw(map_HW, _picture(image, i)[0], heat_map_BHWC[i])
            bar.update_absolute(i + 1)
        text = "\n".join(report_lines(figures, settings, MAP_SCALES[map]))
        return io.NodeOutput(text, heat_map_BHWC, ui=ui.PreviewText(text))


def _cropped(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Without what was padded to whole latent cells, where the other image says so."""
    size_px = Size(*other.shape[1:3])
    if Size(*image.shape[1:3]) == padded_size_px(size_px):
        return image[:, : size_px.height, : size_px.width]
    return image


def _figures(
    i: int,
    image: torch.Tensor,
    reference: torch.Tensor,
    truth: torch.Tensor | None,
    compared_px: Size,
    boxes: list[Box],
) -> Figures:
    image_CHW, unsound = _picture(image, i)
    reference_CHW, reference_unsound = _picture(reference, i)
    found = consistency(image_CHW, reference_CHW, compared_px)
    drift = color_drift(image_CHW, reference_CHW)
    mm.throw_exception_if_processing_interrupted()
    seams = find_seams(image_CHW, boxes) if len(boxes) > 1 else None
    counts = {"the image": unsound, "the reference": reference_unsound}
    against_truth = None
    if truth is not None:
        truth_CHW, counts["the truth"] = _picture(truth, i)
        against_truth = psnr_db(image_CHW, truth_CHW), ssim(image_CHW, truth_CHW)
    return Figures(
        image_px=Size(*image_CHW.shape[1:]),
        consistency=found,
        drift=drift,
        seams=seams,
        tiles=len(boxes),
        truth=against_truth,
        unsound={name: count for name, count in counts.items() if count},
    )


def _picture(images_BHWC: torch.Tensor, i: int) -> tuple[torch.Tensor, int]:
    """One image, or the only one there is, without alpha as fp32 (3, H, W) in [0, 1]; and how many pixels were not finite."""
    image_CHW = images_BHWC[i if images_BHWC.shape[0] > 1 else 0, ..., :3].float().movedim(-1, 0)
    low, high = (bound.item() for bound in image_CHW.aminmax())
    if low >= 0 and high <= 1:  # and no NaN: most pictures need no copy
        return image_CHW, 0
    unsound = int((~image_CHW.isfinite()).any(dim=0).sum())
    return image_CHW.nan_to_num(0.0, 0.0, 0.0).clamp_(0, 1), unsound


def _map(figures: Figures, kind: str) -> torch.Tensor:
    """The numbers of the map at the image's size, (H, W), 1 for the last colour."""
    if kind == "seams":
        size_px = figures.image_px
        return torch.zeros(*size_px) if figures.seams is None else seam_map(figures.seams, size_px) / MOST_SEAM_RATIO
    small_HW, most = (
        (figures.consistency.error_HW, MOST_ERROR_U8 / 255) if kind == "consistency" else (figures.drift.difference_HW, MOST_DE00)
    )
    return F.interpolate(small_HW[None, None], tuple(figures.image_px), mode="bilinear")[0, 0] / most
