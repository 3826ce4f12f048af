"""16 bits a channel, which Pillow cuts to 8 in colour pictures: decoded by PyAV, which ComfyUI brings."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .photo import from_unit, turned

PNG_DEPTH_AT, PNG_INTERLACED_AT = 24, 28
"""In its first chunk (PNG, 11.2.1)."""
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_PLANAR, TIFF_EXTRA_SAMPLES, TIFF_SAMPLE_FORMAT = 258, 262, 284, 338, 339
WHITE_IS_ZERO = 0
"""TIFF 6.0, PhotometricInterpretation: a negative."""
ASSOCIATED_ALPHA = 1
"""TIFF 6.0, section 18: colours are multiplied by alpha."""


@dataclass(frozen=True)
class Stored:
    """How a file keeps its pixels, before anything is turned: EXIF's orientation, and (width, height)."""

    orientation: int
    size: tuple[int, int]


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether the file has more than 8 bits a channel that are kept: 16, or floats from 0 to 1."""
    if image.mode == "F":
        return True
    if image.format == "PNG":
        return data[PNG_DEPTH_AT] == 16
    if image.format == "TIFF":
        return set(_tag(image, TIFF_BITS)) == {16}
    return False


def require_known(image: Image.Image) -> None:
    """Look for TIFFs that Pillow opens and reads wrongly.

    Raises:
        ValueError: channels apart at 16 bits, or numbers with a sign.
    """
    if image.format != "TIFF":
        return
    if set(_tag(image, TIFF_BITS)) == {16} and _tag(image, TIFF_PLANAR) == (2,):
        raise ValueError("expected the channels of a 16-bit TIFF pixel by pixel, got them apart (planar); save it chunky")
    if 2 in _tag(image, TIFF_SAMPLE_FORMAT):
        raise ValueError("expected numbers without a sign, got a TIFF of signed ones; save it as 16 bit")


def decode_deep(image: Image.Image, stored: Stored, data: bytes) -> NDArray[Any] | None:
    """uint16 (H, W, C), C of 1 (grey), 3 or 4 (alpha last); None where PyAV is missing or does not take it.

    Grey comes turned as `image` is, which Pillow has decoded; colour as it is stored. PyAV shows half a file without a word, and
    reads some kinds wrongly; so Pillow has decoded it first, and the upper halves of all numbers must be Pillow's.
    """
    negative = image.format == "TIFF" and _tag(image, TIFF_PHOTOMETRIC) == (WHITE_IS_ZERO,)
    if image.mode == "F":
        return _of_floats(1 - np.asarray(image) if negative else np.asarray(image))[..., None]
    if image.mode.startswith("I"):  # grey alone: Pillow has all its bits
        grey_HW = np.asarray(image).astype(np.uint16)
        return (65535 - grey_HW if negative else grey_HW)[..., None]
    channels = {"RGB": 3, "RGBA": 4, "LA": 4}.get(image.mode)
    if channels is None or (image.format == "PNG" and data[PNG_INTERLACED_AT]):  # which can end the process in FFmpeg
        return None
    pixels_HWC = _by_pyav(data)
    if pixels_HWC is None or pixels_HWC.shape[1::-1] != stored.size or pixels_HWC.shape[-1] < channels:
        return None
    pixels_HWC = pixels_HWC[..., :channels]  # a TIFF's further channels need not be alpha; Pillow knows
    as_pillow = pixels_HWC
    if image.format == "TIFF":
        if channels == 4 and ASSOCIATED_ALPHA in _tag(image, TIFF_EXTRA_SAMPLES):
            alpha = np.maximum(pixels_HWC[..., 3:].astype(np.float32), 1.0)
            colors = np.clip(np.rint(pixels_HWC[..., :3] * (65535 / alpha)), 0, 65535).astype(np.uint16)
            return np.concatenate([colors, pixels_HWC[..., 3:]], axis=-1)
        as_pillow = turned(pixels_HWC, stored.orientation)
    if not np.array_equal(as_pillow >> 8, np.asarray(image.convert("RGBA") if image.mode == "LA" else image)):
        logging.debug("PyAV and Pillow read the picture differently")
        return None
    return pixels_HWC


def _by_pyav(data: bytes) -> NDArray[Any] | None:
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        return None
    try:
        with av.open(io.BytesIO(data)) as container:
            return _pixels(next(container.decode(video=0)))
    except (FFmpegError, StopIteration, ValueError, IndexError) as error:
        logging.debug("PyAV does not take the picture: %s", error)
        return None


def _of_floats(values: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"expected floats from 0 (black) to 1 (white), got {values.min():g} to {values.max():g}; save it as 16 bit"
        )
    return from_unit(values, 16)


def _pixels(frame) -> NDArray[Any] | None:
    """FFmpeg's formats of whole channels, in the byte order of this machine."""
    name = frame.format.name
    if name.startswith(("rgb48", "rgba64")):
        return frame.to_ndarray(format="rgb48le" if name.startswith("rgb48") else "rgba64le")
    if name.startswith("ya16"):
        plane = frame.planes[0]
        both = np.frombuffer(plane, ">u2" if name.endswith("be") else "<u2").reshape(frame.height, plane.line_size // 2)
        both = both[:, : 2 * frame.width].reshape(frame.height, frame.width, 2).astype(np.uint16)
        return both[..., [0, 0, 0, 1]]
    return None


def _tag(image: Image.Image, number: int) -> tuple[Any, ...]:
    """A TIFF's tag; () where there is none."""
    value = image.tag_v2.get(number, ())  # type: ignore[attr-defined] - TiffImageFile's own
    return value if isinstance(value, tuple) else (value,)
