"""The fidelity decoder on pictures of any size, tile by tile: the memory of one tile, and the result of the whole picture.

Nothing in the network looks further than `sizes.reach_px`, so a tile with that margin gives the whole picture's values inside; at
the picture's border the margin ends, and convolutions see the zeros that they would see there anyway.

Shapes: C channels, H and W pixels, multiples of 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..geometry import LATENT_CELL_PX
from .network import FidelityDecoder


@dataclass(frozen=True, kw_only=True)
class DecoderTiling:
    """How to run in tiles; but for rounding the picture does not depend on it.

    Attributes:
        tile_px: side of a tile without its margin, a multiple of 8.
        device, dtype: where and in what to compute.
        progress: called before each tile with the part of the work done, in [0, 1]; may raise to stop.
    """

    tile_px: int
    device: torch.device
    dtype: torch.dtype
    progress: Callable[[float], None]

    def __post_init__(self) -> None:
        assert self.tile_px >= LATENT_CELL_PX and self.tile_px % LATENT_CELL_PX == 0, self.tile_px


def correct_in_tiles(
    decoder: FidelityDecoder,
    decoded_1CHW: torch.Tensor,
    lq_1CHW: torch.Tensor,
    features_1CHW: torch.Tensor,
    fidelity: torch.Tensor | float,
    tiling: DecoderTiling,
) -> torch.Tensor:
    """The picture (1, 3, H, W), float32, about [0, 1], where `decoded_1CHW` is; not clamped.

    Args:
        decoder: on `tiling.device`.
        decoded_1CHW: the VAE's picture in [0, 1].
        lq_1CHW: the LQ picture at the same size, in [0, 1].
        features_1CHW: the LQ encoder's features (1, feature_channels, H/8, W/8).
        fidelity: in [0, 1]; 0 gives `decoded_1CHW` bit for bit; or one for each pixel, (1, 1, H, W).
        tiling: see there.

    Raises:
        FloatingPointError: values that are not finite, in a type that is too small or from a picture that is not.
    """
    _, _, height, width = decoded_1CHW.shape
    assert lq_1CHW.shape == decoded_1CHW.shape and height % LATENT_CELL_PX == width % LATENT_CELL_PX == 0, lq_1CHW.shape
    out_1CHW = decoded_1CHW.float().clone(memory_format=torch.contiguous_format)
    side, margin = tiling.tile_px, decoder.sizes.reach_px
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    for i, (top, left) in enumerate(corners):
        tiling.progress(i / len(corners))
        bottom, right = min(top + side, height), min(left + side, width)
        rows = slice(max(top - margin, 0), min(bottom + margin, height))
        columns = slice(max(left - margin, 0), min(right + margin, width))
        cells = tuple(slice(part.start // LATENT_CELL_PX, part.stop // LATENT_CELL_PX) for part in (rows, columns))
        decoded, lq = (t[..., rows, columns].to(tiling.device).float() * 2.0 - 1.0 for t in (decoded_1CHW, lq_1CHW))
        features = features_1CHW[..., cells[0], cells[1]].to(tiling.device, tiling.dtype)
        keep, correction = decoder.corrections(decoded.to(tiling.dtype), lq.to(tiling.dtype), features)
        change = 0.5 * (keep.float() * (lq - decoded) + correction.float())  # from [-1, 1] to [0, 1] is half
        inner = (..., slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start))
        part = (..., slice(top, bottom), slice(left, right))
        share = fidelity[part].to(out_1CHW) if isinstance(fidelity, torch.Tensor) else fidelity
        change = change[inner].to(out_1CHW)
        if not torch.isfinite(change).all():
            raise FloatingPointError("a correction that is not finite")
        out_1CHW[part] += share * change
    tiling.progress(1.0)
    return out_1CHW
