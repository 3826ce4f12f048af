"""What the tests of the plan ask: an image of several tiles, its plan, the node's answer."""

from __future__ import annotations

from comfyui_faithdiff.nodes.plan import FaithDiffPlan
from comfyui_faithdiff.nodes.planning.plan import plan
from comfyui_faithdiff.nodes.tiles.run import TileSettings

from support import tiny
from support.sampling import CFG

IMAGE = tiny.image(104, 160)  # 13 x 20 cells: 3 x 4 tiles of 8 cells at half overlap
STEPS = 2


def planned(model, latent, size_px=64, overlap=0.5, batch=0, steps=STEPS, cfg=CFG):
    settings = TileSettings(tile_size_px=size_px, tile_overlap_frac=overlap, tile_batch=batch)
    return plan(model, latent["samples"], steps=steps, cfg=cfg, settings=settings)


def node_text(model, latent, tile_size=64, measure=False):
    return FaithDiffPlan.execute(model, latent, STEPS, CFG, tile_size, 0.5, 0, measure)
