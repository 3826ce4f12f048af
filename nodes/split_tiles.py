"""FaithDiff Split Into Tiles: the tiles of the sampler as a list, for a captioning node."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..faithdiff_core.geometry import LATENT_CELL_PX, Box, Size, latent_size
from .seam.inputs import checked
from .seam.types import TILES_CATEGORY
from .tiles.inputs import grid_inputs, grid_of


class FaithDiffSplitTiles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffSplitTiles",
            display_name="FaithDiff Split Into Tiles",
            category=TILES_CATEGORY,
            description="Cuts the enlarged image into the tiles that the sampler will work in, one by one, row by row, so that "
            "any captioning node describes each of them for FaithDiff Tile Prompts.",
            search_aliases=["tile list", "caption tiles"],
            inputs=[
                io.Image.Input("image", tooltip="The enlarged image, the same that FaithDiff Encode LQ Features is given."),
                *grid_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="tiles", is_output_list=True, tooltip="The tiles as a list; a captioning node runs on each."
                )
            ],
        )

    @classmethod
    @checked
    def execute(cls, image: torch.Tensor, tile_size: int, tile_overlap: float) -> io.NodeOutput:
        boxes = grid_of(latent_size(Size(*image.shape[1:3])), tile_size, tile_overlap)
        px = [Box(*(side * LATENT_CELL_PX for side in box)) for box in boxes]
        return io.NodeOutput([image[:, b.top : b.top + b.height, b.left : b.left + b.width] for b in px])
