"""Reading and writing pictures, and the two number ranges used here: uint8 0..255 on disk, float32 [-1, 1] in the networks."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, features

from faithdiff_core.photo.photo import MAX_PX
from training.common.files import write_bytes

HAS_AVIF = features.check("avif")
"""Whether this Pillow was built with it."""
IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        *([".avif"] if HAS_AVIF else []),
    }
)
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", *(["AVIF"] if HAS_AVIF else []))
"""Pillow's names of these. Of other formats under these suffixes some start programs (EPS: Ghostscript)."""
PILLOWS_LIMIT_PX = 2**30 // 4 // 3
"""Pillow's default (Image.py, MAX_IMAGE_PIXELS)."""
ADDRESS = re.compile(r"\s*<[^<>]* object at 0x[0-9A-Fa-f]+>")
"""How Python shows an object that has no name; Pillow's messages have one where a file's name belongs."""

# Pillow calls what is beyond twice its own limit an attack. Here `open_picture` holds the size against MAX_PX instead; a program
# that has chosen another limit before (the fuzzers do) keeps it.
if Image.MAX_IMAGE_PIXELS == PILLOWS_LIMIT_PX:
    Image.MAX_IMAGE_PIXELS = None


class UnreadableError(ValueError):
    """A picture that cannot be read; the message says why, in one line."""


class Picture(NamedTuple):
    """`image_u8`: uint8 (3, H, W). `warnings`: what of the file is not in it, a sentence each."""

    image_u8: torch.Tensor
    warnings: tuple[str, ...]


class Located(Protocol):
    """Where the bytes of one file lie: a whole file (size_bytes 0), or `size_bytes` from `offset` on in a
    shard (data/shards.py).
    """

    @property
    def path(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


def read_bytes(source: Path | Located) -> bytes:
    """The bytes of a file, or of one member of a shard.

    Raises:
        OSError: it cannot be read.
        ValueError: the shard ends before the member does.
    """
    if isinstance(source, Path):
        return source.read_bytes()
    with open(source.path, "rb") as file:
        if not source.size_bytes:
            return file.read()
        there = max(os.fstat(file.fileno()).st_size - source.offset, 0)
        if there < source.size_bytes:  # before room is made for what is not there
            raise ValueError(
                f"expected {source.size_bytes} bytes at {source.offset} of {source.path}, got {there}, copy it again"
            )
        file.seek(source.offset)
        return file.read(source.size_bytes)


def read_image(source: Path | Located) -> torch.Tensor:
    """Read a picture as uint8 (3, H, W), EXIF turned upright, alpha dropped.

    Raises:
        ValueError: the file cannot be read or decoded.
    """
    return decode_image(*_named_bytes(source))


def read_picture(source: Path | Located) -> Picture:
    """The same, with what is to be told of it.

    Raises:
        ValueError: the file cannot be read or decoded.
    """
    data, name = _named_bytes(source)
    return Picture(decode_image(data, name), warnings_of(data, name))


def _named_bytes(source: Path | Located) -> tuple[bytes, str]:
    name = str(source if isinstance(source, Path) else source.path)
    try:
        return read_bytes(source), name
    except OSError as error:
        raise UnreadableError(f"expected a readable picture, got {name} ({error}), remove or replace it") from error


def decode_image(data: bytes, name: str) -> torch.Tensor:
    """The same from bytes; `name` is for the message."""
    try:
        with open_picture(io.BytesIO(data), name) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I;16"):  # 16-bit grey: Pillow would clip at 255, which makes it white
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            array = np.array(upright.convert("RGB"))
    except (MemoryError, UnreadableError):
        raise  # of this machine, not of the file: its size has been held against MAX_PX; or said already
    except Exception as error:  # its decoders raise many kinds, down to struct.error and KeyError, for damaged files
        raise _unreadable(name, error) from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


@contextmanager
def open_picture(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Context with a picture whose head is read and whose pixels are not; `name` is for the message.

    Raises:
        UnreadableError: none of IMAGE_FORMATS, or more than MAX_PX.
    """
    try:
        opened = Image.open(file, formats=IMAGE_FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # as in `decode_image`
        raise _unreadable(name, error) from error
    with opened:
        width, height = opened.size
        if width * height > MAX_PX:
            raise UnreadableError(
                f"expected a picture of at most {MAX_PX} px (16384 x 16384), got {name} of {width} x {height} px; make it smaller"
            )
        yield opened


def warnings_of(data: bytes, name: str) -> tuple[str, ...]:
    """What reading the picture leaves out. Its head is looked at, not its pixels.

    Raises:
        UnreadableError: as for `open_picture`.
    """
    with open_picture(io.BytesIO(data), name) as opened:
        frames = frames_of(opened)
    return (f"only the first of its {frames} frames or pages is taken",) if frames > 1 else ()


def frames_of(opened: Image.Image) -> int:
    """Frames of an animation, pages of a TIFF. A camera's JPEG with further views (MPO) is one picture, for ComfyUI, too."""
    try:
        return 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    except MemoryError:
        raise
    except Exception:  # the first frame may be whole where a later one is damaged
        return 1


def without_addresses(text: str) -> str:
    """A message without the addresses of objects, which tell a user nothing and differ each time."""
    return ADDRESS.sub("", text)


def _unreadable(name: str, error: Exception) -> UnreadableError:
    reason = f"{type(error).__name__} {without_addresses(str(error)):.160}"
    return UnreadableError(f"expected a readable picture, got {name} ({reason}), remove or replace it")


def to_unit(image_u8: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [0, 1]."""
    return image_u8.float() / 255.0


def to_signed(image_u8: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return image_u8.float() / 127.5 - 1.0


def unit_to_u8(image: torch.Tensor) -> torch.Tensor:
    """Float [0, 1] -> uint8, rounded, clipped."""
    return (image.float().clamp(0, 1) * 255.0).round().to(torch.uint8)


def png_bytes(image_CHW_u8: torch.Tensor) -> bytes:
    """uint8 (3, H, W) as a PNG file."""
    picture, written = Image.fromarray(image_CHW_u8.permute(1, 2, 0).contiguous().numpy(), "RGB"), io.BytesIO()
    picture.save(written, format="PNG", optimize=True)
    return written.getvalue()


def write_png(path: Path, image_CHW_u8: torch.Tensor) -> None:
    """Write uint8 (3, H, W) as PNG, atomically."""
    write_bytes(path, png_bytes(image_CHW_u8))
