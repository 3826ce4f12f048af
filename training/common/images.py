"""Reading and writing pictures, and the two number ranges used here: uint8 0..255 on disk, float32 [-1, 1] in the networks."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image

from faithdiff_core.photo.photo import Photo, at_depth, same_shape
from faithdiff_core.photo.photo import to_unit as array_to_unit
from faithdiff_core.photo.read import open_head, read_photo, suffixes_here
from faithdiff_core.photo.write import Output, encode_photo
from training.common.files import write_bytes

IMAGE_SUFFIXES = suffixes_here()
"""Of files that are pictures, in lower case."""
ADDRESS = re.compile(r"\s*<[^<>]* object at 0x[0-9A-Fa-f]+>")
"""How Python shows an object that has no name; Pillow's messages have one where a file's name belongs."""


class UnreadableError(ValueError):
    """A picture that cannot be read; the message says why, in one line."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in sRGB, upright, and what its file has beside."""

    photo: Photo

    @property
    def image_u8(self) -> torch.Tensor:
        """The colours as uint8 (3, H, W)."""
        return _planes(at_depth(self.photo.color_HWC, 8))

    @property
    def image(self) -> torch.Tensor:
        """The colours as float32 (3, H, W) in [0, 1], with all the bits that the file has."""
        return _planes(array_to_unit(self.photo.color_HWC))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not taken as it is, a sentence each."""
        return self.photo.warnings

    def restored_png(self, image_CHW: torch.Tensor, *, in_srgb: bool = False) -> tuple[bytes, tuple[str, ...]]:
        """A result, float32 (3, H, W) in [0, 1], as a PNG file with this picture's profile, depth, alpha and metadata.

        `in_srgb`: in sRGB instead of the profile. Also gives notes on what could not be kept, a sentence each.
        """
        alpha_HW, notes = enlarged_alpha(self.photo, image_CHW.shape[1], image_CHW.shape[2])
        color_HWC = image_CHW.float().permute(1, 2, 0).contiguous().numpy()
        written = encode_photo(color_HWC, alpha_HW, self.photo.source, Output(container="PNG", in_srgb=in_srgb))
        return written.data, (*notes, *written.notes)


def _planes(pixels_HWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()


def enlarged_alpha(photo: Photo, height_px: int, width_px: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The alpha at a result's size, float32 (H, W) in [0, 1], by Lanczos; None, and a note, if the result has another shape."""
    if photo.alpha_HW is None:
        return None, ()
    if not same_shape(photo.alpha_HW.shape[:2], (height_px, width_px)):
        return None, (f"the result's shape is another, {width_px}x{height_px} px, so it has no alpha",)
    plane = Image.fromarray(array_to_unit(photo.alpha_HW))
    if (height_px, width_px) != photo.alpha_HW.shape:
        plane = plane.resize((width_px, height_px), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(plane), 0.0, 1.0), ()


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
    """Read a picture as uint8 (3, H, W) in sRGB, upright, without alpha.

    Raises:
        ValueError: the file cannot be read or decoded.
    """
    return decode_image(*_named_bytes(source))


def read_picture(source: Path | Located) -> Picture:
    """The same, with all that its file has.

    Raises:
        ValueError: the file cannot be read or decoded.
    """
    return decode_picture(*_named_bytes(source))


def _named_bytes(source: Path | Located) -> tuple[bytes, str]:
    name = str(source if isinstance(source, Path) else source.path)
    try:
        return read_bytes(source), name
    except OSError as error:
        raise UnreadableError(f"expected a readable picture, got {name} ({error}), remove or replace it") from error


def decode_image(data: bytes, name: str) -> torch.Tensor:
    """The same as `read_image` from bytes; `name` is the file's."""
    return decode_picture(data, name).image_u8


def decode_picture(data: bytes, name: str) -> Picture:
    """The same as `read_picture` from bytes; `name` is the file's."""
    try:
        return Picture(read_photo(data, name))
    except ValueError as error:
        raise UnreadableError(without_addresses(str(error))) from error


@contextmanager
def open_picture(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Context with a picture whose head is read and whose pixels are not; `name` is for the message.

    Raises:
        UnreadableError: it is none that is read, or larger than MAX_PX.
    """
    try:
        with open_head(file, name) as opened:
            yield opened
    except ValueError as error:
        raise UnreadableError(without_addresses(str(error))) from error


def without_addresses(text: str) -> str:
    """A message without the addresses of objects, which tell a user nothing and differ each time."""
    return ADDRESS.sub("", text)


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
