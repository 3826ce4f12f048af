"""A picture's bytes to a Photo: strictly, once, whatever its mode, depth, profile and orientation."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from . import metadata, profiles
from .alpha import fill_hidden
from .curves import adobe_rgb, read_profile
from .deep import PNG_DEPTH_AT, Stored, decode_deep, is_deep, require_known
from .photo import MAX_PX, Photo, PhotoSource, at_depth, from_unit, to_unit, turned
from .png_chunks import check_png, png_warnings

SUFFIXES = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"), "GIF": (".gif",), "AVIF": (".avif",), "HEIF": (".heic", ".heif", ".hif"),
}  # fmt: skip
"""Pillow's names of what is read -> suffixes. AVIF depends on its build, HEIF on pillow-heif. Of other formats some start
programs (EPS: Ghostscript)."""
OF_FRAMES = ("PNG", "GIF", "WEBP", "TIFF", "AVIF", "HEIF")
"""Those whose further frames are pictures of their own; in a JPEG they are previews and gain maps."""
SCALES_OF_GREY = {1: 255, 2: 85, 4: 17}
"""Bits of grey -> what makes white 255."""
PILLOWS_LIMIT_PX = 2**30 // 4 // 3
"""Pillow's default (Image.py, MAX_IMAGE_PIXELS); another that a program has chosen stays."""


def formats_here() -> tuple[str, ...]:
    """Those of SUFFIXES that this Pillow reads."""
    Image.init()
    return tuple(name for name in SUFFIXES if name in Image.OPEN)


def suffixes_here() -> frozenset[str]:
    """Their suffixes."""
    return frozenset(suffix for name in formats_here() for suffix in SUFFIXES[name])


def read_photo(data: bytes, name: str) -> Photo:
    """Decode a picture.

    Args:
        data: the whole file.
        name: of the file, for messages and for the result.

    Raises:
        ValueError: it is damaged or cut, too large, of a kind that cannot be shown in sRGB, or no picture. One line.
    """
    told: list[str] = []
    try:
        with open_head(io.BytesIO(data), name) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format in OF_FRAMES:
                told.append(f"has {frames} frames or pages, of which the first is taken")
            if image.format == "PNG":
                told += png_warnings(check_png(data))
            stored = Stored(metadata.orientation_of(image), image.size)
            require_known(image)
            image.load()
            return _photo(image, stored, data, name, told)
    except (MemoryError, _Named):
        raise  # of this machine, not of the file: its size was looked at
    except Exception as error:  # decoders raise many kinds, down to struct.error and KeyError, for damaged files
        raise _unreadable(name, error) from error


@contextmanager
def open_head(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Context with a picture whose head is read and whose pixels are not; in it, Pillow is strict.

    Raises:
        ValueError: it is none of SUFFIXES, or more than MAX_PX.
    """
    with _STRICT:
        try:
            image = Image.open(file, formats=formats_here())
        except MemoryError:
            raise
        except Exception as error:  # as in `read_photo`
            raise _unreadable(name, error) from error
        with image:
            if image.width * image.height > MAX_PX:
                raise _Named(
                    f"expected a picture of at most {MAX_PX} px (16384 x 16384), got {name} of {image.width} x {image.height} "
                    "px; make it smaller"
                )
            yield image


class _Named(ValueError):
    """The message names the file already."""


def _unreadable(name: str, error: Exception) -> _Named:
    return _Named(f"expected a readable picture, got {name} ({_reason(error)}); remove or replace it")


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError) and str(error).startswith("expected "):
        return str(error)
    if isinstance(error, Image.UnidentifiedImageError):
        return f"it is none of {', '.join(formats_here())}, or of a kind of it that Pillow does not read"
    return f"{type(error).__name__} {error!s:.160}"


class _Strict:
    """Context in which Pillow refuses files that are cut and opens large ones, whose size is looked at here.

    These are settings of the process: several threads may be inside, and the last one out puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: tuple[int | None, bool] = (None, False)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                if Image.MAX_IMAGE_PIXELS == PILLOWS_LIMIT_PX:
                    Image.MAX_IMAGE_PIXELS = None
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_STRICT = _Strict()


def _photo(image: Image.Image, stored: Stored, data: bytes, name: str, told: list[str]) -> Photo:
    """Of an image that Pillow has decoded."""
    profile = image.info.get("icc_profile") or None
    deep = is_deep(image, data)
    grey_bits = data[PNG_DEPTH_AT] if image.format == "PNG" and image.mode == "L" else 8
    pixels_HWC = decode_deep(image, stored, data) if deep else None
    # Pillow turns a TIFF when it decodes it, and no other; PyAV, which gives deep colour, none.
    in_colour = pixels_HWC is not None and pixels_HWC.shape[-1] > 1
    orientation = stored.orientation if in_colour else metadata.orientation_of(image)
    color_HWC, alpha_HW, kept = _deep(image, pixels_HWC, profile, told) if deep else _plain(image, profile, told, grey_bits)
    color_HWC = turned(color_HWC, orientation)
    alpha_HW = None if alpha_HW is None else turned(alpha_HW, orientation)
    has_alpha = alpha_HW is not None
    if alpha_HW is not None:
        color_HWC = _filled(color_HWC, alpha_HW)
    source = PhotoSource(
        name=PurePath(name.replace("\\", "/")).stem,
        container={"MPO": "JPEG"}.get(str(image.format), str(image.format)),
        depth_bits=16 if deep else 8,
        profile=kept,
        exif=metadata.exif_block(image),
        xmp=metadata.xmp_block(image),
        dpi=metadata.dpi_of(image),
        has_alpha=has_alpha,
    )
    as_stored = stored.orientation == 1 and color_HWC.dtype == np.uint8 and image.mode in ("RGB", "L")
    as_seen = profile is None or kept is not None  # 8 bits in another space than sRGB become 16
    return Photo(
        color_HWC=color_HWC, alpha_HW=alpha_HW, source=source, warnings=tuple(told),
        is_plain=as_stored and as_seen and not has_alpha and not told,
    )  # fmt: skip


def _plain(
    image: Image.Image, profile: bytes | None, told: list[str], grey_bits: int = 8
) -> tuple[NDArray[Any], NDArray[Any] | None, bytes | None]:
    """Colours in sRGB, alpha, and the profile to give back, of a picture of 8 bits a channel."""
    alpha_HW = None
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        raise ValueError(f"expected 8 or 16 bits a channel, got another depth (Pillow's mode {image.mode}); save it as 16 bit")
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):  # Pillow widens the pixels, and not the key
        alpha_HW = np.where(np.asarray(image) == key * SCALES_OF_GREY.get(grey_bits, 1), 0, 255).astype(np.uint8)
    elif image.mode in ("P", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    if image.mode in ("RGBA", "LA"):
        alpha_HW = np.array(image.getchannel("A"))
        image = image.convert(image.mode[:-1])
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    color_HWC, kept = _in_srgb(image, profile, told)
    if alpha_HW is not None:
        alpha_HW = at_depth(alpha_HW, 8 * color_HWC.dtype.itemsize)
    return color_HWC, alpha_HW, kept


def _in_srgb(image: Image.Image, profile: bytes | None, told: list[str]) -> tuple[NDArray[Any], bytes | None]:
    """As RGB in sRGB, and the profile that a result can be given. Of 16 bits where the way to sRGB would lose some."""
    if image.mode == "LAB":
        return np.array(profiles.lab_to_srgb(image)), None
    if profile is None:
        if image.mode == "CMYK":
            told.append("is CMYK without a profile, so its colours are a guess")
        elif image.mode == "RGB" and metadata.is_adobe_rgb(image):
            told.append("says Adobe RGB in EXIF and has no profile; it was taken as Adobe RGB, and results are sRGB")
            return adobe_rgb().to_srgb(at_depth(np.asarray(image), 16)), None
        return np.array(image.convert("RGB")), None
    curves = read_profile(profile)
    if curves is not None and image.mode == "RGB" and curves.to_xyz is not None:
        return (np.array(image) if curves.is_srgb else curves.to_srgb(at_depth(np.asarray(image), 16))), profile
    if curves is not None and image.mode == "L" and curves.to_xyz is None:
        return curves.to_srgb(at_depth(np.asarray(image), 16)[..., None]), None
    try:
        return np.array(profiles.to_srgb(image, profile)), profile if image.mode == "RGB" else None
    except profiles.UnreadableProfile as error:
        told.append(f"has a colour profile that was not used ({error}); its colours were taken as sRGB")
        return np.array(image.convert("RGB")), None


def _deep(
    image: Image.Image, pixels_HWC: NDArray[Any] | None, profile: bytes | None, told: list[str]
) -> tuple[NDArray[Any], NDArray[Any] | None, bytes | None]:
    """The same in uint16, of what `decode_deep` gave."""
    curves = read_profile(profile) if profile else None
    grey = pixels_HWC is not None and pixels_HWC.shape[-1] == 1
    usable = not profile or (curves is not None and (curves.to_xyz is None) == bool(grey))
    if pixels_HWC is None or not usable:
        what = "its kind" if pixels_HWC is None else "its profile"
        told.append(f"has 16 bits a channel, of which 8 were taken: {what} is not read at 16")
        if image.mode.startswith("I"):
            image = Image.fromarray(at_depth(np.asarray(image).astype(np.uint16), 8))
        color_HWC, alpha_HW, kept = _plain(image, profile, told)
        return at_depth(color_HWC, 16), None if alpha_HW is None else at_depth(alpha_HW, 16), kept
    alpha_HW = np.ascontiguousarray(pixels_HWC[..., 3]) if pixels_HWC.shape[-1] == 4 else None
    if alpha_HW is None and "transparency" in image.info:  # one colour that means "not there"
        alpha_HW = _alpha_of_one_colour(pixels_HWC, image.info["transparency"])
    color_HWC = pixels_HWC[..., :3]
    if curves is not None and not curves.is_srgb:
        return curves.to_srgb(color_HWC), alpha_HW, None if grey else profile
    color_HWC = np.repeat(color_HWC, 3, axis=-1) if grey else np.ascontiguousarray(color_HWC)
    return color_HWC, alpha_HW, None if grey else profile


def _alpha_of_one_colour(pixels_HWC: NDArray[Any], colour: int | tuple[int, ...]) -> NDArray[Any]:
    """PNG's tRNS: pixels of exactly that colour are invisible."""
    same_HW = (pixels_HWC == np.atleast_1d(np.array(colour, np.uint16))).all(axis=-1)
    return np.where(same_HW, 0, 65535).astype(np.uint16)


def _filled(color_HWC: NDArray[Any], alpha_HW: NDArray[Any]) -> NDArray[Any]:
    if alpha_HW.all() or not alpha_HW.any():
        return color_HWC
    filled = fill_hidden(torch.from_numpy(to_unit(color_HWC)), torch.from_numpy(to_unit(alpha_HW)))
    made = from_unit(filled.numpy(), 16 if color_HWC.dtype == np.uint16 else 8)
    return np.where((alpha_HW > 0)[..., None], color_HWC, made)
