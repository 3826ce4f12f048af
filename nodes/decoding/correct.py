"""The fidelity decoder with the memory there is: the largest tiles that fit, then smaller; fp32 where a half type overflows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_patcher
import torch

from ...faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from ...faithdiff_core.fidelity_decoder.tiles import DecoderTiling, correct_in_tiles
from ...faithdiff_core.geometry import Size
from ..seam.encode import NetworkInTiles

BYTES_PER_PX = 1000
"""Of the default widths at the network's peak, in any type, as norms are in fp32: 629 were measured in fp32 and 670 in bf16, on a
CPU at 512 px; half more for the workspace of a device's convolutions."""
TILES_PX = (2048, 1024, 512, 256)
"""Their margins, 80 px on each side, make a tile of 2048 px 1.16 times its own pixels, one of 256 px 2.6 times. None is larger,
so that a run is seen to go on, and can be cancelled."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One picture to correct; see `correct_in_tiles`."""

    decoded_1CHW: torch.Tensor
    lq_1CHW: torch.Tensor
    features_1CHW: torch.Tensor
    fidelity: torch.Tensor | float


class PictureCorrector(NetworkInTiles):
    """Corrects pictures of one size, one at a time.

    Args:
        patcher: of a `FidelityDecoder`.
        size_px: of the pictures, multiples of 8.
    """

    where = "in the fidelity decoder"
    result = "picture"
    advice = "set fidelity to 0 or start ComfyUI with --cpu-vae"

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, size_px: Size):
        self.size_px = size_px
        super().__init__(patcher, tile_sizes_to_try(size_px), decides=True)

    def correct(self, picture: Decoded, progress: Callable[[float], None]) -> torch.Tensor:
        """The corrected picture (1, 3, H, W), about [0, 1].

        Args:
            picture: the decoded one, and what it is corrected by.
            progress: called with the part of the work done; may raise to stop.

        Raises:
            ValueError: a correction that is not finite, in fp32 either.
        """
        try:
            return self.in_tiles(lambda dtype: self._correct_as(dtype, picture, progress))
        except FloatingPointError:
            raise ValueError(
                "expected finite values from the fidelity decoder, got NaN or infinity; check the image that was given to "
                "FaithDiff Encode LQ Features, or choose another decoder"
            ) from None

    def _correct_as(self, dtype: torch.dtype, picture: Decoded, progress: Callable[[float], None]) -> torch.Tensor | None:
        """The picture, or None where the correction is not finite."""
        self.load()  # again for each picture: the VAE has had the device in between
        tiling = DecoderTiling(tile_px=self.tiles_px[0], device=self.device, dtype=dtype, progress=progress)
        given = (picture.decoded_1CHW, picture.lq_1CHW, picture.features_1CHW, picture.fidelity)
        try:
            return correct_in_tiles(self.patcher.model, *given, tiling)
        except FloatingPointError:
            return None

    def _needed_bytes(self) -> int:
        """Of the first of `tiles_px`, at its peak."""
        sizes: FidelityDecoderSizes = self.patcher.model.sizes
        height, width = (min(side, self.tiles_px[0] + 2 * sizes.reach_px) for side in self.size_px)
        return int(BYTES_PER_PX * sizes.widths[0] / FidelityDecoderSizes().widths[0] * height * width)


def tile_sizes_to_try(size_px: Size) -> list[int]:
    """Pixels per tile in the order in which to try them: the smallest that holds the picture, if one does, and all below it."""
    holding = [px for px in TILES_PX if px >= max(size_px)]
    return holding[-1:] + [px for px in TILES_PX if px < max(size_px)]
