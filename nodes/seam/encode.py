"""The LQ encoder with the memory there is: an image whole while it fits, in tiles otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...faithdiff_core.geometry import Size, latent_size, pad_to_latent_cells
from ...faithdiff_core.photo.alpha import visible_colors
from ...faithdiff_core.tiled_encoder.attention import attention_bytes
from ...faithdiff_core.tiled_encoder.encode import MARGIN_PX, MIN_TILE_PX, EncoderTiling, encode_tiled, to_network_range
from . import host

DEVICE_BYTES_PER_PX = 1767
"""Bytes per pixel and byte of type at the encoder's peak: measured by the host for the same network (H comfy/sd.py,
memory_used_encode)."""
CPU_BYTES_PER_PX = 1000
"""The same on a CPU: 772 were measured at 512 and 768 px; a third more, because a process that takes too much there is ended
without a warning."""
RELEASED_ENCODER_WIDTH = 128
"""The width that these numbers are for."""

UNTILED = 0
"""Among the sizes of tiles: the image in one piece."""
TILES_PX = (1024, 512, 256)
"""With its margins a tile of 1024 px is 1.13 times its own pixels, one of 256 px 1.57 times."""

KEEP_BYTES = 2 * 2**30
"""Activations kept between two passes over the tiles: a fixed number, so that a large image needs no more than a small one. With
it the convolutions of SDXL's encoder do 1.4 (fp16) or 1.7 times (fp32) the work of the whole image at 2048 px, 2.0 or 3.5 times
at 4096 px and 6 times at 8192 px."""
KEEP_FRAC = 0.25
"""And no more than this part of what is free."""


def padded_image(image_BHWC: torch.Tensor, i: int) -> torch.Tensor:
    """Image i without alpha, padded to whole cells, (1, 3, H, W); never the whole batch, which would be a copy of it."""
    return pad_to_latent_cells(visible_colors(image_BHWC[i]).movedim(-1, 0)[None])


class NetworkInTiles:
    """A network with the memory there is: the largest tiles that fit, smaller ones after running out, fp32 after an overflow.

    What it learnt about memory from one picture holds for the next.

    Args:
        patcher: of the network.
        tiles_px: UNTILED or pixels per tile, in the order in which to try them.
        decides: whether sizes that cannot fit are left out before any is tried.

    Attributes:
        where: of the work, as a message says it.
        result: what it gives, as a message says it.
        advice: what to do where the smallest tiles do not fit.
    """

    where: str
    result: str
    advice: str

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, tiles_px: list[int], decides: bool):
        self.patcher = patcher
        self.device = patcher.load_device
        # The release runs the LQ encoder in fp16 (official load_additional_layers).
        self.dtype = mm.vae_dtype(self.device, [torch.float16, torch.bfloat16])
        self.tiles_px = tiles_px
        self.has_warned = False
        while decides and len(self.tiles_px) > 1 and not self._fits():
            del self.tiles_px[0]

    def in_tiles(self, act: Callable[[torch.dtype], torch.Tensor | None]) -> torch.Tensor:
        """What `act` gives in a type, with tiles of `tiles_px[0]`; None from it: values that are not finite.

        Raises:
            FloatingPointError: not finite in fp32 either.
        """
        while True:
            try:
                return self._finite(act)
            except Exception as e:
                if not host.is_oom(e):
                    raise
                if len(self.tiles_px) == 1:  # raised on as it is: the host knows it by its type, and frees what it holds
                    how = "whole" if self.tiles_px[0] == UNTILED else f"in tiles of {self.tiles_px[0]} px"
                    logging.error("FaithDiff: out of memory %s %s; %s", self.where, how, self.advice)
                    raise
            # Out of the except block, which holds on to the tensors of the call that failed.
            mm.soft_empty_cache()
            del self.tiles_px[0]
            if not self.has_warned:
                logging.warning(
                    "FaithDiff: out of memory %s; going on with tiles of at most %d px, which gives the same %s and takes longer",
                    self.where,
                    self.tiles_px[0],
                    self.result,
                )
            self.has_warned = True

    def _finite(self, act: Callable[[torch.dtype], torch.Tensor | None]) -> torch.Tensor:
        result = act(self.dtype)
        if result is None and self.dtype != torch.float32:
            logging.warning("FaithDiff: overflow in %s %s, computing the %s again in fp32", self.dtype, self.where, self.result)
            result = act(torch.float32)
        if result is None:
            raise FloatingPointError
        return result

    def _fits(self) -> bool:
        """Whether the device holds the first of `tiles_px`, once the host has made room for it."""
        total_bytes: int = mm.get_total_memory(self.device)  # pyright: ignore[reportAssignmentType]  (a tuple if asked for two)
        if self._needed_bytes() > total_bytes:
            return False  # no use in emptying the device
        self.load()
        return self.patcher.get_free_memory(self.device) >= self._needed_bytes()

    def load(self) -> None:
        """Onto the device, with room for the first of `tiles_px`."""
        mm.load_models_gpu([self.patcher], memory_required=self._needed_bytes())

    def _needed_bytes(self) -> int:
        """Of the first of `tiles_px`, at its peak."""
        raise NotImplementedError


class ImageEncoder(NetworkInTiles):
    """Encodes images of one size, one at a time.

    Args:
        patcher: of the LQ encoder.
        size_px: of the images, multiples of 8.
        tile_size: pixels per tile; 0 decides by the memory.
    """

    result = "features"
    advice = "use a smaller target size or start ComfyUI with --cpu-vae"

    def __init__(self, patcher: comfy.model_patcher.ModelPatcher, size_px: Size, tile_size: int):
        self.size_px = size_px
        self.where = f"while encoding a {size_px} px image"
        super().__init__(patcher, tile_sizes_to_try(size_px, tile_size), decides=tile_size == 0)
        self.load()

    def encode(self, rgb_1CHW: torch.Tensor, progress: Callable[[float], None]) -> torch.Tensor:
        """Features (1, feature_channels, H/8, W/8) on the host's intermediate device of an image (1, 3, H, W) in [0, 1].

        Args:
            rgb_1CHW: the image.
            progress: called with the part of the work done; may raise to stop.

        Raises:
            ValueError: features that are not finite.
        """
        try:
            return self.in_tiles(lambda dtype: self._encode_as(dtype, rgb_1CHW, progress))
        except FloatingPointError:
            raise ValueError(
                "expected an image of finite values in [0, 1], got LQ features with NaN or infinity; check the image input"
            ) from None

    def _encode_as(self, dtype: torch.dtype, rgb_1CHW: torch.Tensor, progress: Callable[[float], None]) -> torch.Tensor | None:
        """Features, or None where they are not finite."""
        tile_px = self.tiles_px[0]
        if tile_px == UNTILED:
            progress(0.0)
            lq_1CHW = to_network_range(rgb_1CHW).to(self.device).to(dtype)
            features_1CHW = self.patcher.model(lq_1CHW).to(mm.intermediate_device())
        else:
            free_bytes: int = mm.get_free_memory(mm.intermediate_device())  # pyright: ignore[reportAssignmentType]  (or a tuple)
            tiling = EncoderTiling(
                tile_px=tile_px,
                keep_bytes=min(KEEP_BYTES, int(KEEP_FRAC * free_bytes)),
                device=self.device,
                dtype=dtype,
                keep_device=mm.intermediate_device(),
                progress=progress,
            )
            try:
                features_1CHW = encode_tiled(self.patcher.model, rgb_1CHW, tiling)
            except FloatingPointError:
                return None
        # Extremes instead of isfinite of every value, which would hold several copies of large features.
        return features_1CHW if all(torch.isfinite(extreme) for extreme in torch.aminmax(features_1CHW)) else None

    def _needed_bytes(self) -> int:
        """Of the first of `tiles_px`, at its peak."""
        tile_px = self.tiles_px[0]
        height, width = self.size_px if tile_px == UNTILED else (min(side, tile_px + MARGIN_PX) for side in self.size_px)
        bytes_per_px = CPU_BYTES_PER_PX if mm.is_device_cpu(self.device) else DEVICE_BYTES_PER_PX
        widths = self.patcher.model.sizes.block_out_channels
        width_frac = widths[0] / RELEASED_ENCODER_WIDTH
        tile_bytes = int(bytes_per_px * width_frac * height * width * self.dtype.itemsize)
        return max(tile_bytes, attention_bytes(*latent_size(self.size_px), widths[-1], self.dtype.itemsize))


def tile_sizes_to_try(size_px: Size, tile_size: int) -> list[int]:
    """UNTILED or pixels per tile, in the order in which to try them.

    Args:
        size_px: of the image.
        tile_size: the first to try, rounded up to a multiple of 8; 0 for the whole image.
    """
    first_px = max(MIN_TILE_PX, -(-tile_size // 8) * 8)
    untiled = tile_size == 0 or max(size_px) <= first_px
    tiles = [tile_px for tile_px in TILES_PX if tile_px < (max(size_px) if untiled else first_px)]
    return [UNTILED if untiled else first_px, *tiles]
