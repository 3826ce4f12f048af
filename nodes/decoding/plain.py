"""The host's VAE decoder with the memory there is: a latent whole while it fits, in the host's tiles otherwise."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import comfy.model_management as mm
import comfy.sd
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Size
from ..seam import host
from ..seam.inputs import FROM_A_VAE

CPU_FRAC = 0.55
"""Of the host's estimate, 2178 bytes per pixel and byte of type (H comfy/sd.py, memory_used_decode): on a CPU 926 were measured
at 768 px and 918 at 512 px, scores of the attention included; a third more, because a process that takes too much there is ended
without a warning."""
UNTILED = 0
"""Among the sizes of tiles: the latent in one piece."""
TILES_LAT: Sequence[int] = (128, 64, 32)
"""A tile has statistics of its own, so the picture depends on them a little: large ones first. 128 cells are SDXL's 1024 px."""
HOSTS_TILE_LAT = 64
"""Of the tiles that the host goes on with by itself where a latent does not go through whole (H comfy/sd.py, decode_tiled_)."""


def decode(vae: comfy.sd.VAE, samples_1CHW: torch.Tensor) -> torch.Tensor:
    """The picture (1, 3, H, W) in [0, 1] of a latent (1, 4, H/8, W/8), on the host's intermediate device.

    Raises:
        ValueError: a picture that is not finite.
    """
    tiles_lat = _tiles_to_try(vae, samples_1CHW)
    while True:
        try:
            picture_1HWC = _decode_in(tiles_lat[0], vae, samples_1CHW)
            break
        except Exception as e:
            if not host.is_oom(e) or len(tiles_lat) == 1:
                raise
        # Out of the except block, which holds on to the tensors of the call that failed.
        mm.soft_empty_cache()
        del tiles_lat[0]
        logging.warning("FaithDiff: out of memory while decoding; going on with tiles of %d px", tiles_lat[0] * LATENT_CELL_PX)
    picture_1CHW = picture_1HWC[..., :3].movedim(-1, 1)
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(picture_1CHW)):
        raise ValueError(f"expected a picture of finite numbers from the VAE, got NaN or infinity; {FROM_A_VAE}")
    return picture_1CHW


def _decode_in(tile_lat: int, vae: comfy.sd.VAE, samples_1CHW: torch.Tensor) -> torch.Tensor:
    if tile_lat == UNTILED:
        return vae.decode(samples_1CHW)
    return vae.decode_tiled(samples_1CHW, tile_x=tile_lat, tile_y=tile_lat, overlap=tile_lat // 4)


def _tiles_to_try(vae: comfy.sd.VAE, samples_1CHW: torch.Tensor) -> list[int]:
    """UNTILED or cells of a tile, in the order in which to try them: the first that should fit, and all smaller ones."""
    cells = Size(*samples_1CHW.shape[-2:])
    if _fits(vae, cells):
        return [UNTILED, *(lat for lat in TILES_LAT if lat < HOSTS_TILE_LAT)]  # larger ones the host has tried by then
    tiles_lat = list(TILES_LAT)
    while len(tiles_lat) > 1 and not _fits(vae, Size(tiles_lat[0], tiles_lat[0])):
        del tiles_lat[0]
    return tiles_lat


def _fits(vae: comfy.sd.VAE, cells: Size) -> bool:
    return host.vae_has_room(vae, vae.memory_used_decode((1, 4, *cells), vae.vae_dtype), CPU_FRAC, cells)
