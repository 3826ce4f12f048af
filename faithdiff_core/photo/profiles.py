"""Colours from a file's profile to sRGB, and back: by curves.py where that will do, by littlecms (in Pillow) for the others."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .curves import read_profile
from .photo import at_depth, from_unit

MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
"""A profile's colour space (ICC.1 table 19) -> Pillow's mode."""
NO_LITTLECMS = (
    "expected littlecms in Pillow for the picture's colour profile, got a Pillow without it; "
    "install the usual one (pip install --force-reinstall pillow), or save the picture in sRGB"
)


class UnreadableProfile(Exception):
    """littlecms does not take it."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An 8-bit image (L, RGB, CMYK or LAB) as RGB in sRGB; perceptual intent, black point compensation.

    Raises:
        UnreadableProfile: it is damaged, or for another kind of colour.
        ValueError: Pillow has no littlecms.
    """
    if MODES.get(profile[16:20]) != image.mode:
        raise UnreadableProfile(f"it is for {ascii(profile[16:20].decode('latin-1').strip())}, the picture is {image.mode}")
    return _transformed(image, _opened(profile), _srgb(), "RGB")


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """An image of Pillow's mode LAB as RGB."""
    return _transformed(image, _cms().createProfile("LAB"), _srgb(), "RGB")


def from_srgb(color_HWC: NDArray[Any], profile: bytes, depth_bits: int) -> NDArray[Any]:
    """Float32 sRGB (H, W, 3) in [0, 1] as uint8 or uint16 in an RGB profile. One of tables gives 8 significant bits.

    Raises:
        UnreadableProfile: littlecms does not take it in this direction.
        ValueError: Pillow has no littlecms, and the profile needs it.
    """
    curves = read_profile(profile)
    if curves is not None:
        return from_unit(color_HWC if curves.is_srgb else curves.from_srgb(color_HWC), depth_bits)
    made = _transformed(Image.fromarray(from_unit(color_HWC, 8)), _srgb(), _opened(profile), "RGB")
    return at_depth(np.asarray(made), depth_bits)


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB profile, the same bytes at any time.

    Raises:
        ValueError: Pillow has no littlecms.
    """
    made = bytearray(_cms().ImageCmsProfile(_srgb()).tobytes())
    made[24:36] = bytes(12)  # the date it was made at (ICC.1 7.2.8)
    made[84:100] = bytes(16)  # its checksum, 0 = none (7.2.18)
    return bytes(made)


def _cms():
    from PIL import ImageCms

    try:
        ImageCms.core.littlecms_version  # noqa: B018 - a deferred import error comes when it is first looked at
    except ImportError as error:
        raise ValueError(NO_LITTLECMS) from error
    return ImageCms


def _srgb():
    return _cms().createProfile("sRGB")


def _opened(profile: bytes):
    cms = _cms()
    try:
        return cms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, cms.PyCMSError) as error:
        raise UnreadableProfile("it is damaged") from error


def _transformed(image: Image.Image, source, target, mode: str) -> Image.Image:
    cms = _cms()
    try:
        transform = cms.buildTransform(
            source, target, image.mode, mode, cms.Intent.PERCEPTUAL, cms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        made = cms.applyTransform(image, transform)
    except (OSError, ValueError, cms.PyCMSError) as error:
        raise UnreadableProfile(str(error)[:160]) from error
    assert made is not None, "it is not made in place"
    return made
