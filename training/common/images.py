"""Reading and writing pictures, and the two number ranges used here: uint8 0..255 on disk, float32 [-1, 1] in the networks."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps

from training.common.files import write_atomically

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Pillow's names of these. Of other formats under these suffixes some start programs (EPS: Ghostscript)."""


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
    name = str(source if isinstance(source, Path) else source.path)
    try:
        return decode_image(read_bytes(source), name)
    except OSError as error:
        raise ValueError(f"expected a readable picture, got {name} ({error}), remove or replace it") from error


def decode_image(data: bytes, name: str) -> torch.Tensor:
    """The same from bytes; `name` is for the message."""
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I;16"):  # 16-bit grey: Pillow would clip at 255, which makes it white
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            array = np.array(upright.convert("RGB"))
    except MemoryError:
        raise  # of this machine, not of the file: Pillow has held its size against MAX_IMAGE_PIXELS
    except Exception as error:  # its decoders raise many kinds, down to struct.error and KeyError, for damaged files
        reason = f"{type(error).__name__} {error!s:.160}"
        raise ValueError(f"expected a readable picture, got {name} ({reason}), remove or replace it") from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_unit(image_u8: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [0, 1]."""
    return image_u8.float() / 255.0


def to_signed(image_u8: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return image_u8.float() / 127.5 - 1.0


def unit_to_u8(image: torch.Tensor) -> torch.Tensor:
    """Float [0, 1] -> uint8, rounded, clipped."""
    return (image.float().clamp(0, 1) * 255.0).round().to(torch.uint8)


def write_png(path: Path, image_CHW_u8: torch.Tensor) -> None:
    """Write uint8 (3, H, W) as PNG, atomically."""
    picture = Image.fromarray(image_CHW_u8.permute(1, 2, 0).contiguous().numpy(), "RGB")
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def picture_paths(inputs: list[Path]) -> list[tuple[str, Path]]:
    """(key, path) of every picture named or found below a folder, sorted by key.

    The key is the path below the folder given, without suffix and with forward slashes; a file's key is its stem.

    Raises:
        ValueError: an input that does not exist, or a file that is no picture by its suffix.
    """
    found: list[tuple[str, Path]] = []
    for item in inputs:
        if item.is_dir():
            files = [path for path in item.rglob("*") if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
            found += [(path.relative_to(item).with_suffix("").as_posix(), path) for path in files]
        elif item.is_file():
            found.append((item.stem, item))
        else:
            raise ValueError(f"expected a picture or a folder, got {item}, which does not exist; check the path")
    return sorted(found)
