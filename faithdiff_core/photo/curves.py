"""RGB and grey profiles that are curves and a matrix (ICC.1:2022, 8.3 and 8.4): Display P3, Adobe RGB, ProPhoto, most cameras.

Written out because Pillow's littlecms takes 8 bit a channel only; these are exact at any depth. Perceptual intent means the same
as colorimetric for them, and black point compensation nothing, because their black is 0. Colours outside of sRGB are clipped, as
littlecms does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

DARKEST = 1e-4
"""Of linear light. Where a profile's black is brighter, black point compensation does something, and littlecms is asked."""
CURVE_POINTS = 65536
"""One for each 16-bit value."""
STRIP_ROWS = 256
"""Rows in floats at a time."""
SAME_CURVE = 5e-4
SAME_MATRIX = 2e-3
"""How far a profile may be from sRGB to be taken for it: under a quarter of an 8-bit level; the many sRGB profiles differ by
roundings of s15Fixed16 numbers and by their tables' lengths."""
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]],
)
"""Linear sRGB to XYZ at D50, the connection space (IEC 61966-2-1, adapted by Bradford; columns are the colorants)."""
ADOBE_TO_XYZ = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]],
)
ADOBE_GAMMA = 563 / 256
"""Adobe RGB (1998), 4.3.1 and annex C: for files that name it in EXIF and have no profile."""


@dataclass(frozen=True, eq=False)
class CurvesProfile:
    """`curves`: (3 or 1, CURVE_POINTS), device values 0..1 at even steps to linear light. `to_xyz`: (3, 3), or None for grey."""

    curves: NDArray[Any]
    to_xyz: NDArray[Any] | None

    @cached_property
    def is_srgb(self) -> bool:
        """Whether its colours are those of sRGB, so that nothing need be changed."""
        if self.to_xyz is None or np.abs(self.to_xyz - SRGB_TO_XYZ).max() > SAME_MATRIX:
            return False
        return bool(np.abs(self.curves - srgb_curve()).max() < SAME_CURVE)

    def to_srgb(self, color_HWC: NDArray[Any]) -> NDArray[Any]:
        """uint16 (H, W, 3) of this profile ((H, W, 1) of grey) to uint16 sRGB (H, W, 3)."""
        result = np.empty((*color_HWC.shape[:2], 3), np.uint16)
        for rows in _strips(color_HWC):
            linear = np.stack([self.curves[c][color_HWC[rows, :, c]] for c in range(color_HWC.shape[-1])], axis=-1)
            if self.to_xyz is not None:
                linear = linear @ (np.linalg.inv(SRGB_TO_XYZ) @ self.to_xyz).T.astype(np.float32)
            result[rows] = np.rint(_encode_srgb(np.clip(linear, 0.0, 1.0)) * 65535)
        return result

    def from_srgb(self, color_HWC: NDArray[Any]) -> NDArray[Any]:
        """Float32 sRGB (H, W, 3) in [0, 1] to float32 of this profile, clipped to it.

        Raises:
            ValueError: a grey profile.
        """
        if self.to_xyz is None:
            raise ValueError("expected a profile of RGB, got one of grey")
        matrix = (np.linalg.inv(self.to_xyz) @ SRGB_TO_XYZ).T.astype(np.float32)
        device = np.linspace(0.0, 1.0, CURVE_POINTS)
        result = np.empty_like(color_HWC, dtype=np.float32)
        for rows in _strips(color_HWC):
            linear = np.clip(_decode_srgb(np.clip(color_HWC[rows], 0.0, 1.0)) @ matrix, 0.0, 1.0)
            for c in range(3):
                result[rows, :, c] = np.interp(linear[..., c], self.curves[c], device)
        return result


@lru_cache(maxsize=4)  # pictures come in series of one profile; 0.8 MB each
def read_profile(profile: bytes) -> CurvesProfile | None:
    """Take an ICC profile apart; None if it is another kind (tables), is damaged, or its curves go down."""
    try:
        if profile[16:20] not in (b"RGB ", b"GRAY") or profile[20:24] != b"XYZ ":
            return None
        tags = _tags(profile)
        if profile[16:20] == b"GRAY":
            return CurvesProfile(_rising([_curve(tags[b"kTRC"])]), None)
        if b"A2B0" in tags:
            return None  # the profile's maker wants its tables used
        colorants = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=-1)
        if abs(np.linalg.det(colorants)) < 1e-4:
            return None
        return CurvesProfile(_rising([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]), colorants)
    except (KeyError, ValueError, IndexError, struct.error, FloatingPointError, ZeroDivisionError):
        return None


def adobe_rgb() -> CurvesProfile:
    """Adobe RGB (1998), for files that have no profile and say in EXIF that they are in it."""
    curve = (np.linspace(0.0, 1.0, CURVE_POINTS) ** ADOBE_GAMMA).astype(np.float32)
    return CurvesProfile(np.stack([curve] * 3), ADOBE_TO_XYZ)


def srgb_curve() -> NDArray[Any]:
    """The curve of sRGB itself, (CURVE_POINTS,)."""
    return _decode_srgb(np.linspace(0.0, 1.0, CURVE_POINTS, dtype=np.float32))


def _strips(color_HWC: NDArray[Any]) -> list[slice]:
    return [slice(top, top + STRIP_ROWS) for top in range(0, color_HWC.shape[0], STRIP_ROWS)]


def _decode_srgb(values: NDArray[Any]) -> NDArray[Any]:
    """IEC 61966-2-1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encode_srgb(linear: NDArray[Any]) -> NDArray[Any]:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """ICC.1 7.3: at 128 a count, then signature, offset and size of each."""
    (count,) = struct.unpack_from(">I", profile, 128)
    found = {}
    for index in range(min(count, 100)):
        name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        found[name] = profile[start : start + size]
    return found


def _xyz(tag: bytes) -> NDArray[Any]:
    if tag[:4] != b"XYZ ":
        raise ValueError("no XYZ")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> NDArray[Any]:
    """A `curv` (10.6) or `para` (10.18) over 0..1."""
    device = np.linspace(0.0, 1.0, CURVE_POINTS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return device
        values = np.frombuffer(tag, ">u2", count, 12)
        if count == 1:
            return device ** (values[0] / 256)
        return np.interp(device, np.linspace(0.0, 1.0, count), values / 65535)
    if tag[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    numbers = [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
    return _parametric(device, kind, numbers)


def _parametric(x: NDArray[Any], kind: int, numbers: list[float]) -> NDArray[Any]:
    """ICC.1 table 68; the letters are its own."""
    g, a, b, c, d, e, f = (*numbers, *(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)[len(numbers) :])
    if kind == 1:
        d, c = -b / a, 0.0
    elif kind == 2:
        d, e, f, c = -b / a, c, c, 0.0
    with np.errstate(invalid="raise", over="raise"):
        return np.where(x >= d, np.maximum(a * x + b, 0.0) ** g + e, c * x + f)


def _rising(curves: list[NDArray[Any]]) -> NDArray[Any]:
    stacked = np.clip(np.stack(curves), 0.0, 1.0).astype(np.float32)
    if (np.diff(stacked, axis=-1) < 0).any() or (stacked[:, -1] <= stacked[:, 0]).any():
        raise ValueError("a curve that goes down")
    if stacked[:, 0].max() > DARKEST:
        raise ValueError("black that is not 0")
    return stacked
