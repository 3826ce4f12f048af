"""Prompts for one tile: how FaithDiff Tile Prompts marks them, and how the tiled sampler reads the marks.

A prompt has its tile's area and a mark. In tiles of that size the mark says where it acts, and the area is not needed. Without
tiles, or in the smaller ones after memory ran out, the areas with the host's ramps keep every prompt in its place.
"""

from __future__ import annotations

from typing import Any

from ...faithdiff_core.geometry import Box, Size

TILE_KEY = "faithdiff_tile"
OTHER_GRID = (
    "expected a prompt for every tile, got prompts for other tiles; give FaithDiff Tile Prompts and FaithDiff "
    "Split Into Tiles the tile_size and tile_overlap of the sampler"
)


def for_tile(entry: list, box: Box) -> list:
    """An entry of a CONDITIONING, made to act in one tile (latent cells) only."""
    context, options = entry
    return [context, {**options, "area": (box.height, box.width, box.top, box.left), TILE_KEY: box}]


def with_tiles_of(conds: list[dict[str, Any]], size: Size) -> list[tuple[dict[str, Any], Box | None]]:
    """Processed conditions, each with the tile of this size that it is for; None where it is for no tile or for one of another.

    To every area in one prompt the host adds a copy of the other prompt, marks and all (H comfy/samplers.py,
    create_cond_with_same_area_if_none). Where the other prompt is there for all tiles, its copies would only say it again.
    """
    everywhere = {id(c["model_conds"].get("c_crossattn")) for c in conds if not c.keys() & {"area", "mask"}}
    result: list[tuple[dict[str, Any], Box | None]] = []
    for cond in conds:
        tile = cond.get(TILE_KEY)
        if tile is None or tile[2:] != size:
            result.append((cond, None))
        elif id(cond["model_conds"].get("c_crossattn")) not in everywhere:
            result.append(({key: value for key, value in cond.items() if key != "area"}, tile))
    return result
