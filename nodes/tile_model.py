"""FaithDiff Tile Model: a MODEL that samples in tiles under KSampler, SamplerCustom and other samplers."""

from __future__ import annotations

import comfy.model_patcher
from comfy_api.latest import io

from .seam.inputs import checked
from .seam.types import TILES_CATEGORY
from .tiles.inputs import tile_inputs
from .tiles.run import TileSettings
from .tiles.wrapper import with_tiles


class FaithDiffTileModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffTileModel",
            display_name="FaithDiff Tile Model",
            category=TILES_CATEGORY,
            description="Makes any sampler work in overlapping tiles: KSampler, SamplerCustom and others. FaithDiff Sampler "
            "has its own tiles and does not need it.",
            search_aliases=["tiled sampling", "tiled diffusion"],
            inputs=[
                io.Model.Input("model", tooltip="From FaithDiff Align Latent, or any SDXL MODEL."),
                *tile_inputs(),
            ],
            outputs=[
                io.Model.Output(tooltip="The MODEL that samples in tiles; a later FaithDiff Tile Model replaces the settings.")
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model: comfy.model_patcher.ModelPatcher, tile_size: int, tile_overlap: float, tile_batch: int
    ) -> io.NodeOutput:
        settings = TileSettings(tile_size_px=tile_size, tile_overlap_frac=tile_overlap, tile_batch=tile_batch)
        return io.NodeOutput(with_tiles(model, settings))
