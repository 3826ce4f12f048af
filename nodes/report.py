"""FaithDiff Report: how faithful the result is to what went in, in words and as a map."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..faithdiff_core.fidelity.consistency import compared_size
from ..faithdiff_core.fidelity.heat_map import draw
from ..faithdiff_core.geometry import Size, latent_size
from .reporting.maps import MAP_SCALES, map_of
from .reporting.measure import measured, picture, without_padding
from .reporting.text import report_lines
from .seam.host import show_text
from .seam.inputs import checked
from .seam.types import REPORT_CATEGORY
from .tiles.inputs import grid_inputs
from .tiles.run import TileSettings


class FaithDiffReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffReport",
            display_name="FaithDiff Report",
            category=REPORT_CATEGORY,
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
            hidden=[io.Hidden.unique_id],
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
        image = without_padding(image, reference if truth is None else truth)
        size_px = Size(*image.shape[1:3])
        for name, other in (("reference", reference), ("truth", truth)):
            if other is not None and other.shape[0] not in (1, image.shape[0]):
                raise ValueError(f"expected 1 {name} or one for each of the {image.shape[0]} images, got {other.shape[0]}")
        if truth is not None and Size(*truth.shape[1:3]) != size_px:
            raise ValueError(f"expected a truth of the image's {size_px} px, got {Size(*truth.shape[1:3])}; scale it to that")
        compared_px = compared_size(size_px, Size(*reference.shape[1:3]), scale)
        boxes = settings.grid(latent_size(size_px), settings.tile_lat)
        heat_map_BHWC = torch.empty(*image.shape[:3], 3, device=image.device)
        bar, results = comfy.utils.ProgressBar(image.shape[0]), []
        for i in range(image.shape[0]):  # one at a time: a batch of frames needs no more memory than a frame and the result
            mm.throw_exception_if_processing_interrupted()
            results.append(measured(i, image, reference, truth, compared_px, boxes))
            map_HW = map_of(results[-1], map).to(image.device)
            draw(map_HW, picture(image, i)[0], heat_map_BHWC[i])
            bar.update_absolute(i + 1)
        lines = report_lines(results, settings, MAP_SCALES[map])
        show_text(cls, lines)
        text = "\n".join(lines)
        return io.NodeOutput(text, heat_map_BHWC, ui=ui.PreviewText(text))
