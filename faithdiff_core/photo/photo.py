"""What a picture's file holds: its pixels in sRGB, and all that goes back into the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PX = 2**28
"""16384 x 16384, the largest picture that the nodes make. One limit for whatever is read: a few kilobytes can say that they are a
picture of any size."""
SHAPE_TOLERANCE_PX = 2
"""Of either side, to `same_shape`."""
MAX_OF_DEPTH = {8: 255, 16: 65535}


@dataclass(frozen=True, kw_only=True)
class PhotoSource:
    """What the result is to have from its source, beside the pixels.

    `name`: of the file, without folder and suffix. `container`: Pillow's name of it ("JPEG"). `depth_bits`: 8 or 16, a channel.
    `profile`: the ICC profile that the colours were in, if one of RGB (None: sRGB, or a space that no result is written in).
    `exif`: a block that is upright, without thumbnail. `dpi`: horizontal, vertical. `has_alpha`: the file said something of it.
    """

    name: str
    container: str
    depth_bits: int
    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    has_alpha: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A picture upright and in sRGB.

    `color_HWC`: (H, W, 3), uint8, or uint16 where the source has 16 bits or another colour space; where alpha is 0, the colours
    of visible pixels around. `alpha_HW`: of the same kind, or None for an opaque picture. `warnings`: what was not taken as it
    is, a sentence each. `is_plain`: a reader that knows nothing of profiles, turns and depths gets the same pixels.
    """

    color_HWC: NDArray[Any]
    alpha_HW: NDArray[Any] | None
    source: PhotoSource
    warnings: tuple[str, ...] = ()
    is_plain: bool = False


UPRIGHT = {
    2: (False, (1, -1)), 3: (False, (-1, -1)), 4: (False, (-1, 1)), 5: (True, (1, 1)), 6: (True, (1, -1)), 7: (True, (-1, -1)),
    8: (True, (-1, 1)),
}  # fmt: skip
"""EXIF's orientation -> rows and columns change places first, then steps of rows and columns (Exif 2.32, 4.6.4 A)."""


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) as stored to upright."""
    if orientation not in UPRIGHT:
        return pixels
    swap, (rows, columns) = UPRIGHT[orientation]
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(pixels[::rows, ::columns])


def same_shape(old_HW_px: tuple[int, int], new_HW_px: tuple[int, int]) -> bool:
    """Whether one is the other enlarged or made smaller, but for the rounding of its sides."""
    (old_height, old_width), (height, width) = old_HW_px, new_HW_px
    return abs(height * old_width - width * old_height) <= SHAPE_TOLERANCE_PX * max(old_height, old_width, height, width)


def to_unit(pixels: NDArray[Any]) -> NDArray[Any]:
    """uint8 or uint16 -> float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_unit(pixels: NDArray[Any], depth_bits: int) -> NDArray[Any]:
    """Floats in [0, 1], clipped and rounded to uint8 or uint16."""
    scaled = np.clip(pixels, 0.0, 1.0) * np.float32(MAX_OF_DEPTH[depth_bits])
    return np.rint(scaled).astype(np.uint8 if depth_bits == 8 else np.uint16)


def at_depth(pixels: NDArray[Any], depth_bits: int) -> NDArray[Any]:
    """uint8 or uint16 as the other: 255 and 65535 are the same white."""
    if pixels.dtype == (np.uint8 if depth_bits == 8 else np.uint16):
        return pixels
    if depth_bits == 16:
        return pixels.astype(np.uint16) * np.uint16(257)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
