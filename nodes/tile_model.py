"""Tile Model: a MODEL that samples in tiles under KSampler, SamplerCustom and other samplers."""

from __future__ import annotations

import comfy.model_patcher
from comfy_api.latest import io

from .seam.inputs import checked
from .seam.types import CATEGORY
from .tiles.run import TileSettings
from .tiles.wrapper import with_tiles


def tile_inputs() -> list[io.Input]:
    """The three inputs about tiles, the same wherever images are sampled."""
    return [
        io.Int.Input(
            "tile_size",
            default=1024,
            min=0,
            max=16384,
            step=64,
            tooltip="Side of a tile in pixels; 0 samples the whole image at once. The release uses 1024, SDXL's own size.",
        ),
        io.Float.Input(
            "tile_overlap",
            default=0.5,
            min=0.0,
            max=0.95,
            step=0.05,
            advanced=True,
            tooltip="Part of a tile that it shares with the next one; the release uses 0.5. Less is faster and may show seams.",
        ),
        io.Int.Input(
            "tile_batch",
            default=0,
            min=0,
            max=64,
            advanced=True,
            tooltip="Tiles per UNet call; 0 takes as many as fit. The picture does not depend on it.",
        ),
    ]


class FaithDiffTileModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffTileModel",
            display_name="Tile Model",
            category=CATEGORY,
            description="Makes any sampler work in overlapping tiles: KSampler, SamplerCustom and others. FaithDiff Sampler "
            "has its own tiles and does not need it.",
            search_aliases=["tiled sampling", "tiled diffusion", "faithdiff"],
            inputs=[
                io.Model.Input("model", tooltip="From Align Latent, or any SDXL MODEL."),
                *tile_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The MODEL that samples in tiles; a later Tile Model replaces the settings.")],
        )

    @classmethod
    @checked
    def execute(
        cls, model: comfy.model_patcher.ModelPatcher, tile_size: int, tile_overlap: float, tile_batch: int
    ) -> io.NodeOutput:
        settings = TileSettings(tile_size_px=tile_size, tile_overlap_frac=tile_overlap, tile_batch=tile_batch)
        return io.NodeOutput(with_tiles(model, settings))
