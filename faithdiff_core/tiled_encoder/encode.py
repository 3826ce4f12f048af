"""The LQ encoder on images of any size: the features of the whole image, computed tile by tile.

Convolutions see a margin around each tile. Group norms need statistics of the whole image, and each norm's depend on the one
before, so the layers up to a norm run over all tiles once to gather them, and again for what follows. Between, activations are
kept as far as they may take memory; the rest is computed again from the image. Memory is that of one tile, of what may be kept,
and of the features, which are changed in place. The middle's attention is in `attention.py`.

Shapes: C channels, H and W pixels or positions of the level at hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from ..geometry import Size
from ..lq_encoder import LQEncoder, ResnetBlock, SpatialAttention
from .attention import MiddleAttention, pairs
from .norm import Coefficients, Moments, coefficients
from .steps import Down, Join, Norm, Patch, Region, Step, encoder_steps, resnet_steps

MARGIN_PX = 65
"""Of a tile, both sides together: the steps reach 29 px to the left and above, 36 to the right and below."""
MIN_TILE_PX = 64
"""A tile of the last level must be larger than what its neighbours see of it, 2 cells."""

Read = Callable[[Region], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class EncoderTiling:
    """How to encode in tiles; but for rounding the features do not depend on it.

    Attributes:
        tile_px: side of a tile, a multiple of 8, at least MIN_TILE_PX.
        keep_bytes: memory for activations between two passes over the tiles. It saves time: with 0 the convolutions of SDXL's
            encoder do 6 times the work of the whole image, with room for everything 1.4 times (tiles of 512 px).
        device, dtype: where and in what to compute.
        keep_device: where features and kept activations live.
        progress: called before each tile with the part of the work done, in [0, 1]; may raise to stop.
    """

    tile_px: int
    keep_bytes: int
    device: torch.device
    dtype: torch.dtype
    keep_device: torch.device
    progress: Callable[[float], None]

    def __post_init__(self):
        assert self.tile_px >= MIN_TILE_PX and self.tile_px % 8 == 0, self.tile_px


def to_network_range(rgb_BCHW: torch.Tensor) -> torch.Tensor:
    """[0, 1] to [-1, 1]."""
    return rgb_BCHW * 2.0 - 1.0


def encode_tiled(encoder: LQEncoder, rgb_1CHW: torch.Tensor, tiling: EncoderTiling) -> torch.Tensor:
    """Features (1, block_out_channels[-1], H/8, W/8) on `keep_device` of an image (1, 3, H, W) in [0, 1], sides multiples of 8.

    They are those of `LQEncoder.forward` but for rounding, and beyond `attention.MAX_FULL_POSITIONS` but for the
    attention's windows.

    Raises:
        FloatingPointError: activations that are not finite, in a type that is too small or from an image that is not.
    """
    run = _Run(encoder, Size(*rgb_1CHW.shape[-2:]), tiling)
    kept_1CHW: torch.Tensor | None = None
    for steps in run.segments:
        read = run.image_reader(rgb_1CHW) if kept_1CHW is None else run.reader(kept_1CHW)
        kept_1CHW = run.through(steps, read, kept_1CHW)
    assert kept_1CHW is not None, "every encoder has segments"
    run.attend(kept_1CHW)
    return run.through(run.after_attention, run.reader(kept_1CHW), kept_1CHW)


class _Run:
    """One image's way through the encoder."""

    def __init__(self, encoder: LQEncoder, size_px: Size, tiling: EncoderTiling):
        self.tiling = tiling
        self.sizes = tuple(Size(size_px.height >> i, size_px.width >> i) for i in range(len(encoder.down_blocks)))
        self.segments = list(_segments(list(encoder_steps(encoder)), self._is_kept))
        self.attention = cast(SpatialAttention, encoder.mid_block.attentions[0])
        self.attention_norm = Norm(self.attention.group_norm, self.last_level)
        self.after_attention = resnet_steps(cast(ResnetBlock, encoder.mid_block.resnets[1]), self.last_level)
        self.done = 0
        self.attention_macs = 2 * encoder.sizes.block_out_channels[-1] * pairs(*self.sizes[-1])
        self.total = self.attention_macs + sum(self._work(steps) for steps in (*self.segments, self.after_attention))

    @property
    def last_level(self) -> int:
        return len(self.sizes) - 1

    def image_reader(self, rgb_1CHW: torch.Tensor) -> Read:
        """Parts of the image in the network's range; it is never copied whole."""

        def read(region: Region) -> torch.Tensor:
            return to_network_range(region.cut_from(rgb_1CHW).to(self.tiling.device)).to(self.tiling.dtype)

        return read

    def reader(self, kept_1CHW: torch.Tensor) -> Read:
        return lambda region: region.cut_from(kept_1CHW).to(self.tiling.device, self.tiling.dtype)

    def through(self, steps: Sequence[Step], read: Read, kept_1CHW: torch.Tensor | None) -> torch.Tensor:
        """The activations after the steps, on `keep_device`; written over `kept_1CHW`, their input, if of the same shape."""
        known: dict[Norm, Coefficients] = {}
        for i, step in enumerate(steps):
            if isinstance(step, Norm):
                known[step] = self.statistics(step, steps[:i], read, known)
        last = steps[-1]
        assert isinstance(last, Join | Down), "segments end after a block or a downsampler"
        shape = (1, last.channels, *self.sizes[last.level])
        if kept_1CHW is not None and kept_1CHW.shape == shape:
            out_1CHW, in_place = kept_1CHW, True
        else:
            out_1CHW, in_place = torch.empty(shape, dtype=self.tiling.dtype, device=self.tiling.keep_device), False
        # In place a tile is written only after its neighbours in its row and the next, diagonals included, have read it.
        wait = len(self._tiles(last.level)[0]) + 1 if in_place else 0
        pending: deque[tuple[Region, torch.Tensor]] = deque()
        for region in self._each(last.level, steps):
            pending.append((region, self._part(steps, read, region, known).to(out_1CHW)))
            if len(pending) > wait:
                _write(out_1CHW, *pending.popleft())
        for region, part_1CHW in pending:
            _write(out_1CHW, region, part_1CHW)
        return out_1CHW

    def statistics(self, norm: Norm, before: Sequence[Step], read: Read, known: Mapping[Norm, Coefficients]) -> Coefficients:
        """The norm with the whole image's statistics of what the steps before it give."""
        moments = Moments(norm.module.num_groups)
        for region in self._each(norm.level, before):
            moments.add(self._part(before, read, region, known))
        return coefficients(norm.module, moments, self.tiling.device)

    def attend(self, features_1CHW: torch.Tensor) -> None:
        """The middle's attention, in place."""
        MiddleAttention(
            module=self.attention,
            norm=self.statistics(self.attention_norm, [], self.reader(features_1CHW), {}),
            device=self.tiling.device,
            dtype=self.tiling.dtype,
            progress=lambda count: self._advance(2 * features_1CHW.shape[1] * count),
        ).add_to(features_1CHW)

    def _part(self, steps: Sequence[Step], read: Read, region: Region, known: Mapping[Norm, Coefficients]) -> torch.Tensor:
        """One tile of the steps' output."""
        needed = region
        for step in reversed(steps):
            needed = step.needs(needed, self.sizes)
        patch = Patch(read(needed), needed)
        for step in steps:
            patch = step.run(patch, self.sizes, known)
        return patch.cropped(region).values_1CHW

    def _tiles(self, level: int) -> list[list[Region]]:
        """Rows of tiles that cover a level."""
        size, side = self.sizes[level], self.tiling.tile_px >> level
        return [
            [Region(top, left, min(top + side, size.height), min(left + side, size.width)) for left in range(0, size.width, side)]
            for top in range(0, size.height, side)
        ]

    def _each(self, level: int, steps: Sequence[Step]) -> Iterator[Region]:
        """The tiles of a level, with progress for running the steps on each."""
        tiles = [region for row in self._tiles(level) for region in row]
        for region in tiles:
            self._advance(0)
            yield region
            self.done += self._macs(steps) // len(tiles)

    def _advance(self, macs: int) -> None:
        self.tiling.progress(min(1.0, self.done / self.total))
        self.done += macs

    def _macs(self, steps: Sequence[Step]) -> int:
        """Multiplications of running the steps over the whole image once."""
        return sum(step.macs * self.sizes[step.level].height * self.sizes[step.level].width for step in steps)

    def _work(self, steps: Sequence[Step]) -> int:
        """Multiplications of `through`, statistics included."""
        prefixes = [steps[:i] for i, step in enumerate(steps) if isinstance(step, Norm)]
        return sum(self._macs(part) for part in (*prefixes, steps))

    def _is_kept(self, step: Join | Down) -> bool:
        """Whether there is room for this step's output; two of them live at a time. The last level is the features' own room."""
        size = self.sizes[step.level]
        stored_bytes = step.channels * size.height * size.width * self.tiling.dtype.itemsize
        return step.level == self.last_level or 2 * stored_bytes <= self.tiling.keep_bytes


def _segments(steps: list[Step], is_kept: Callable[[Join | Down], bool]) -> Iterator[list[Step]]:
    """The steps cut where activations are kept. A block right before a downsampler goes with it: the half is kept as well."""
    segment: list[Step] = []
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        segment.append(step)
        if isinstance(step, Join | Down) and not isinstance(after, Down) and is_kept(step):
            yield segment
            segment = []
    assert not segment, "the last level is always kept"


def _write(out_1CHW: torch.Tensor, region: Region, part_1CHW: torch.Tensor) -> None:
    region.cut_from(out_1CHW).copy_(part_1CHW)
