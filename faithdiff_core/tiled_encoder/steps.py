"""The LQ encoder as a list of steps that run on a part of an image.

A step says what of its input a part of its output needs, and computes that part just as it is in the whole image: convolutions
see their neighbours' positions, and zeros at the image's border only. A norm's statistics are given.

Shapes: C channels, H and W positions of a level; level 0 is the image, each further level has half its height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from ..geometry import Size
from ..lq_encoder import DownBlock, Downsampler, LQEncoder, ResnetBlock
from .norm import Coefficients


class Region(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of a level."""

    top: int
    left: int
    bottom: int
    right: int

    def cut_from(self, values_1CHW: torch.Tensor, within: Region | None = None) -> torch.Tensor:
        """This region's values, of a level's or of those that are the region `within` of it."""
        top, left = (0, 0) if within is None else within[:2]
        return values_1CHW[..., self.top - top : self.bottom - top, self.left - left : self.right - left]

    def grown(self, size: Size) -> Region:
        """With one position more on each side, as far as the level goes."""
        return Region(
            max(self.top - 1, 0), max(self.left - 1, 0), min(self.bottom + 1, size.height), min(self.right + 1, size.width)
        )

    def shrunk(self, size: Size) -> Region:
        """Without one position on each side that is not the level's border."""
        return Region(
            self.top + (self.top > 0),
            self.left + (self.left > 0),
            self.bottom - (self.bottom < size.height),
            self.right - (self.right < size.width),
        )


@dataclass(frozen=True)
class Patch:
    """A part of a level's activations.

    Attributes:
        values_1CHW: the activations.
        region: which part of the level they are.
        skip: the input of the residual block that this is in the middle of.
    """

    values_1CHW: torch.Tensor
    region: Region
    skip: Patch | None = None

    def cropped(self, region: Region) -> Patch:
        return self if region == self.region else Patch(region.cut_from(self.values_1CHW, self.region), region, self.skip)


class Step(Protocol):
    """One layer."""

    @property
    def level(self) -> int:
        """Of its output."""
        ...

    @property
    def macs(self) -> int:
        """Multiplications per position of its output."""
        ...

    def needs(self, region: Region, sizes: tuple[Size, ...]) -> Region:
        """The part of the input from which this part of the output comes; `sizes` are those of the levels."""
        ...

    def run(self, patch: Patch, sizes: tuple[Size, ...], known: Mapping[Norm, Coefficients]) -> Patch: ...


@dataclass(frozen=True)
class Fork:
    """Keeps the input for the residual connection."""

    level: int
    macs: int = 0

    def needs(self, region: Region, sizes: tuple[Size, ...]) -> Region:
        return region

    def run(self, patch: Patch, sizes: tuple[Size, ...], known: Mapping[Norm, Coefficients]) -> Patch:
        return Patch(patch.values_1CHW, patch.region, patch)


@dataclass(frozen=True)
class Norm:
    """Group norm and SiLU."""

    module: nn.GroupNorm
    level: int

    @property
    def macs(self) -> int:
        return 16 * self.module.num_channels  # memory traffic, in convolutions' time

    def needs(self, region: Region, sizes: tuple[Size, ...]) -> Region:
        return region

    def run(self, patch: Patch, sizes: tuple[Size, ...], known: Mapping[Norm, Coefficients]) -> Patch:
        h_1CHW = F.silu(known[self].normalise(patch.values_1CHW), inplace=True)
        return Patch(h_1CHW.to(patch.values_1CHW.dtype), patch.region, patch.skip)


@dataclass(frozen=True)
class Conv:
    """A 3x3 convolution."""

    module: nn.Conv2d
    level: int

    @property
    def macs(self) -> int:
        return 9 * self.module.in_channels * self.module.out_channels

    def needs(self, region: Region, sizes: tuple[Size, ...]) -> Region:
        return region.grown(sizes[self.level])

    def run(self, patch: Patch, sizes: tuple[Size, ...], known: Mapping[Norm, Coefficients]) -> Patch:
        # The layer pads with zeros, which is right at the image's border; elsewhere the outermost row is wrong, and left out.
        padded = Patch(self.module(patch.values_1CHW), patch.region, patch.skip)
        return padded.cropped(patch.region.shrunk(sizes[self.level]))


@dataclass(frozen=True)
class Join:
    """Adds the residual block's input, through its 1x1 convolution where the width changes."""

    block: ResnetBlock
    level: int

    @property
    def channels(self) -> int:
        return self.block.conv2.out_channels

    @property
    def macs(self) -> int:
        return 0 if self.block.conv_shortcut is None else self.block.conv1.in_channels * self.channels

    def needs(self, region: Region, sizes: tuple[Size, ...]) -> Region:
        return region

    def run(self, patch: Patch, sizes: tuple[Size, ...], known: Mapping[Norm, Coefficients]) -> Patch:
        assert patch.skip is not None, "a Fork comes before"
        x_1CHW = patch.skip.cropped(patch.region).values_1CHW
        return Patch(self.block.add_skip(patch.values_1CHW, x_1CHW), patch.region)


@dataclass(frozen=True)
class Down:
    """Halves height and width; output position p sees 2p, 2p + 1 and 2p + 2, and zero beyond the right and bottom border."""

    module: Downsampler
    level: int

    @property
    def channels(self) -> int:
        return self.module.conv.out_channels

    @property
    def macs(self) -> int:
        return 9 * self.module.conv.in_channels * self.channels

    def needs(self, region: Region, sizes: tuple[Size, ...]) -> Region:
        size = sizes[self.level - 1]
        return Region(
            2 * region.top, 2 * region.left, min(2 * region.bottom + 1, size.height), min(2 * region.right + 1, size.width)
        )

    def run(self, patch: Patch, sizes: tuple[Size, ...], known: Mapping[Norm, Coefficients]) -> Patch:
        assert patch.region.top % 2 == patch.region.left % 2 == 0, patch.region
        # The layer pads right and bottom with zeros, which is right at the image's border; elsewhere an odd part leaves them out.
        h_1CHW = self.module(patch.values_1CHW)
        top, left = patch.region.top // 2, patch.region.left // 2
        return Patch(h_1CHW, Region(top, left, top + h_1CHW.shape[-2], left + h_1CHW.shape[-1]))


def resnet_steps(block: ResnetBlock, level: int) -> list[Step]:
    """The steps of a residual block."""
    return [
        Fork(level),
        Norm(block.norm1, level),
        Conv(block.conv1, level),
        Norm(block.norm2, level),
        Conv(block.conv2, level),
        Join(block, level),
    ]


def encoder_steps(encoder: LQEncoder) -> Iterator[Step]:
    """All steps up to the middle block's attention."""
    yield Conv(encoder.conv_in, 0)
    for level, block in enumerate(cast("list[DownBlock]", encoder.down_blocks)):
        for resnet in cast("list[ResnetBlock]", block.resnets):
            yield from resnet_steps(resnet, level)
        for downsampler in cast("list[Downsampler]", block.downsamplers or []):
            yield Down(downsampler, level + 1)
    yield from resnet_steps(cast(ResnetBlock, encoder.mid_block.resnets[0]), len(encoder.down_blocks) - 1)
