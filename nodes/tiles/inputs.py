"""The inputs of a node that are about tiles, and the grid that they ask for."""

from __future__ import annotations

from comfy_api.latest import io

from ...faithdiff_core.geometry import Box, Size
from .run import TileSettings


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


def grid_inputs() -> list[io.Input]:
    """The sampler's inputs that place its tiles."""
    return [i for i in tile_inputs() if i.id in ("tile_size", "tile_overlap")]


def grid_of(size: Size, tile_size_px: int, overlap_frac: float) -> list[Box]:
    """The sampler's tiles of a latent (cells), row by row."""
    settings = TileSettings(tile_size_px=tile_size_px, tile_overlap_frac=overlap_frac, tile_batch=0)
    return settings.grid(size, settings.tile_lat)
