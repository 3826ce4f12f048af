"""16 bits a channel, which Pillow cuts to 8 in colour pictures: decoded by PyAV, which ComfyUI brings."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .photo import from_unit

PNG_DEPTH_AT = 24
"""Of its first chunk (PNG, 11.2.1)."""
TIFF_BITS, TIFF_EXTRA_SAMPLES = 258, 338
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
        bits = image.tag_v2.get(TIFF_BITS, ())  # type: ignore[attr-defined] - TiffImageFile's own
        return set(bits if isinstance(bits, tuple) else (bits,)) == {16}
    return False


def decode_deep(image: Image.Image, stored: Stored, data: bytes) -> NDArray[Any] | None:
    """uint16 (H, W, C), C of 1 (grey), 3 or 4 (alpha last); None where PyAV is missing or does not take it.

    Grey comes turned as `image` is, which Pillow has decoded; colour as it is stored. PyAV shows half a file without a word, and
    Pillow does not.
    """
    if image.mode == "F":
        return _of_floats(np.asarray(image))[..., None]
    if image.mode.startswith("I"):  # grey alone: Pillow has all its bits
        return np.asarray(image).astype(np.uint16)[..., None]
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        return None
    try:
        with av.open(io.BytesIO(data)) as container:
            frame = next(container.decode(video=0))
            pixels = _pixels(frame)
    except (FFmpegError, StopIteration, ValueError, IndexError) as error:
        logging.debug("PyAV does not take the picture: %s", error)
        return None
    if pixels is None or pixels.shape[1::-1] != stored.size:
        return None
    if image.format == "TIFF" and _is_associated(image):
        alpha = np.maximum(pixels[..., 3:].astype(np.float32), 1.0)
        pixels[..., :3] = np.clip(np.rint(pixels[..., :3] * (65535 / alpha)), 0, 65535)
    return pixels


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


def _is_associated(image: Image.Image) -> bool:
    extra = image.tag_v2.get(TIFF_EXTRA_SAMPLES, ())  # type: ignore[attr-defined]
    return ASSOCIATED_ALPHA in (extra if isinstance(extra, tuple) else (extra,))
