"""The fidelity decoder with the memory there is: the largest tiles that fit, then smaller; fp32 where a half type overflows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from ...faithdiff_core.fidelity_decoder.tiles import DecoderTiling, correct_in_tiles
from ...faithdiff_core.geometry import Size
from ..seam import host

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


class PictureCorrector:
    """Corrects pictures of one size, one at a time. What it learnt about memory from one picture holds for the next.

    Args:
        patcher: of a `FidelityDecoder`.
        size_px: of the pictures, multiples of 8.
    """

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, size_px: Size):
        self.patcher = patcher
        self.size_px = size_px
        self.device = patcher.load_device
        self.dtype = mm.vae_dtype(self.device, [torch.float16, torch.bfloat16])  # as the LQ encoder
        self.tiles_px = tile_sizes_to_try(size_px)
        self.has_warned = False
        while len(self.tiles_px) > 1 and not self._fits():
            del self.tiles_px[0]

    def correct(self, picture: Decoded, progress: Callable[[float], None]) -> torch.Tensor:
        """The corrected picture (1, 3, H, W), about [0, 1].

        Args:
            picture: the decoded one, and what it is corrected by.
            progress: called with the part of the work done; may raise to stop.

        Raises:
            ValueError: a correction that is not finite, in fp32 either.
        """
        while True:
            try:
                return self._correct_finite(picture, progress)
            except Exception as e:
                if not host.is_oom(e):
                    raise
                if len(self.tiles_px) == 1:  # raised on as it is: the host knows it by its type, and frees what it holds
                    logging.error(
                        "FaithDiff: out of memory in the fidelity decoder with tiles of %d px; set fidelity to 0 or start "
                        "ComfyUI with --cpu-vae",
                        self.tiles_px[0],
                    )
                    raise
            # Out of the except block, which holds on to the tensors of the call that failed.
            mm.soft_empty_cache()
            self._step_down()

    def _step_down(self) -> None:
        del self.tiles_px[0]
        if not self.has_warned:
            logging.warning(
                "FaithDiff: out of memory in the fidelity decoder; going on with tiles of at most %d px, which gives the same "
                "picture and takes longer",
                self.tiles_px[0],
            )
        self.has_warned = True

    def _correct_finite(self, picture: Decoded, progress: Callable[[float], None]) -> torch.Tensor:
        self._load()  # again for each picture: the VAE has had the device in between
        corrected_1CHW = self._correct_as(self.dtype, picture, progress)
        if corrected_1CHW is None and self.dtype != torch.float32:
            logging.warning("FaithDiff: the fidelity decoder overflows in %s, computing the picture again in fp32", self.dtype)
            corrected_1CHW = self._correct_as(torch.float32, picture, progress)
        if corrected_1CHW is None:
            raise ValueError(
                "expected finite values from the fidelity decoder, got NaN or infinity; check the image that was given to "
                "FaithDiff Encode LQ Features, or choose another decoder"
            )
        return corrected_1CHW

    def _correct_as(self, dtype: torch.dtype, picture: Decoded, progress: Callable[[float], None]) -> torch.Tensor | None:
        """The picture, or None where the correction is not finite."""
        tiling = DecoderTiling(tile_px=self.tiles_px[0], device=self.device, dtype=dtype, progress=progress)
        given = (picture.decoded_1CHW, picture.lq_1CHW, picture.features_1CHW, picture.fidelity)
        try:
            return correct_in_tiles(self.patcher.model, *given, tiling)
        except FloatingPointError:
            return None

    def _fits(self) -> bool:
        """Whether the device holds the first of `tiles_px`, once the host has made room for it."""
        total_bytes: int = mm.get_total_memory(self.device)  # pyright: ignore[reportAssignmentType]  (a tuple if asked for two)
        if self._needed_bytes() > total_bytes:
            return False  # no use in emptying the device
        self._load()
        return self.patcher.get_free_memory(self.device) >= self._needed_bytes()

    def _load(self) -> None:
        mm.load_models_gpu([self.patcher], memory_required=self._needed_bytes())

    def _needed_bytes(self) -> int:
        """Of the first of `tiles_px`, at its peak."""
        sizes: FidelityDecoderSizes = self.patcher.model.sizes
        height, width = (min(side, self.tiles_px[0] + 2 * sizes.reach_px) for side in self.size_px)
        return int(BYTES_PER_PX * sizes.widths[0] / FidelityDecoderSizes().widths[0] * height * width)


def tile_sizes_to_try(size_px: Size) -> list[int]:
    """Pixels per tile in the order in which to try them: the smallest that holds the picture, if one does, and all below it."""
    holding = [px for px in TILES_PX if px >= max(size_px)]
    return holding[-1:] + [px for px in TILES_PX if px < max(size_px)]
