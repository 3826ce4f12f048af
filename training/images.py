"""Reading and writing pictures, and the two number ranges used here: uint8 0..255 on disk, float32 [-1, 1] in the networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from training.files import write_atomically

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def read_image(path: Path) -> torch.Tensor:
    """Read a picture as uint8 (3, H, W), EXIF turned upright, alpha dropped.

    Raises ValueError if the file cannot be decoded."""
    try:
        with Image.open(path) as opened:
            rgb = ImageOps.exif_transpose(opened).convert("RGB")
            array = np.array(rgb)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected a readable picture, got {path} ({error}), remove or replace it") from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_unit(image_u8: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [0, 1]."""
    return image_u8.float() / 255.0


def to_signed(image_u8: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 [-1, 1]."""
    return image_u8.float() / 127.5 - 1.0


def unit_to_u8(image: torch.Tensor) -> torch.Tensor:
    """float [0, 1] -> uint8, rounded, clipped."""
    return (image.float().clamp(0, 1) * 255.0).round().to(torch.uint8)


def signed_to_u8(image: torch.Tensor) -> torch.Tensor:
    """float [-1, 1] -> uint8, rounded, clipped."""
    return unit_to_u8((image.float() + 1.0) / 2.0)


def write_png(path: Path, image_CHW_u8: torch.Tensor) -> None:
    """Write uint8 (3, H, W) as PNG, atomically."""
    picture = Image.fromarray(image_CHW_u8.permute(1, 2, 0).contiguous().numpy(), "RGB")
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def picture_paths(inputs: list[Path]) -> list[tuple[str, Path]]:
    """(key, path) of every picture named or found below a folder, sorted by key.

    The key is the path below the folder given, without suffix and with forward slashes; a file's key is its stem.
    Raises ValueError for an input that does not exist or a file that is no picture by its suffix."""
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
