"""A restored picture to a file's bytes, with what its source had: profile, depth, alpha, metadata."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import metadata
from .containers import png, tiff
from .curves import read_profile
from .photo import PhotoSource, from_unit
from .profiles import UnreadableProfile, from_srgb, srgb_profile

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif"}
"""Containers that are written -> suffix."""
DEEP = frozenset({"PNG", "TIFF"})
"""Those that hold 16 bits a channel."""
WITH_ALPHA = frozenset({"PNG", "WEBP", "TIFF"})
MAX_SIDE_PX = {"JPEG": 65500, "WEBP": 16383}
"""What the formats hold (libjpeg's JPEG_MAX_DIMENSION; WebP's 14 bits)."""
MAX_PROFILE_IN_PNG_BYTES = 2**20
"""Pillow and others refuse more (PngImagePlugin.MAX_TEXT_CHUNK)."""
TEXT_TAGS = (0x0110, 0x010F, 0x010E, 0x010D, 0x011D, 0x013C)
"""Where ComfyUI's texts may stand in a WebP: Model, Make, then texts that cameras do not write."""
UNKNOWN = PhotoSource(name="restored", container="PNG", depth_bits=8)


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a picture is written. None: as its source.

    `container`: a key of SUFFIXES. `depth_bits`: 8 or 16. `in_srgb`: in sRGB, whatever profile the source had. `quality`: 1 to
    100, of JPEG and WebP (100 in WebP is without loss). `keep_metadata`: EXIF, XMP, DPI. `texts`: ComfyUI's prompt
    and workflow, for PNG and WebP, from which its page reads them.
    """

    container: str | None = None
    depth_bits: int | None = None
    in_srgb: bool = False
    quality: int = 95
    keep_metadata: bool = True
    texts: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Written:
    """`data`: the file. `notes`: what could not be as asked, a sentence each."""

    data: bytes
    suffix: str
    notes: tuple[str, ...]


def container_of(source: PhotoSource, output: Output) -> str:
    """What the result will be in: PNG for sources whose format is not written."""
    wanted = output.container or source.container
    return wanted if wanted in SUFFIXES else "PNG"


def encode_photo(color_HWC: NDArray[Any], alpha_HW: NDArray[Any] | None, source: PhotoSource | None, output: Output) -> Written:
    """Encode a picture.

    Args:
        color_HWC: float32 sRGB (H, W, 3) in [0, 1].
        alpha_HW: float32 (H, W) in [0, 1], or None for an opaque picture.
        source: whose profile, depth and metadata it gets; None: an 8-bit picture in sRGB.
        output: what is to be otherwise.

    Raises:
        ValueError: a side that the format does not hold; a profile that needs littlecms where Pillow has none.
    """
    source = source or UNKNOWN
    container = container_of(source, output)
    height, width = color_HWC.shape[:2]
    limit_px = MAX_SIDE_PX.get(container)
    if limit_px and max(height, width) > limit_px:
        raise ValueError(f"expected sides of at most {limit_px} px for {container}, got {width}x{height}; choose PNG or TIFF")
    notes: list[str] = []
    depth_bits = output.depth_bits or source.depth_bits
    if depth_bits == 16 and container not in DEEP:
        notes.append(f"{container} holds 8 bits a channel, so it has 8 (PNG and TIFF hold 16)")
        depth_bits = 8
    if alpha_HW is not None and container not in WITH_ALPHA:
        notes.append(f"{container} holds no alpha, so it stands on white (PNG, WebP and TIFF hold it)")
        color_HWC = color_HWC * alpha_HW[..., None] + (1 - alpha_HW[..., None])
        alpha_HW = None
    pixels_HWC, profile = _colored(color_HWC, source, output, container, depth_bits, notes)
    if alpha_HW is not None:
        pixels_HWC = np.concatenate([pixels_HWC, from_unit(alpha_HW, depth_bits)[..., None]], axis=-1)
    exif = xmp = dpi = None
    if output.keep_metadata:
        in_srgb = profile is None or _is_srgb(profile)
        exif = metadata.fitted_exif(source.exif, width_px=width, height_px=height, in_srgb=in_srgb)
        xmp, dpi = source.xmp, source.dpi
    if container == "JPEG":
        exif, xmp = metadata.for_jpeg(exif, "EXIF", notes), metadata.for_jpeg(xmp, "XMP", notes)
    data = _encoded(container, pixels_HWC, output, profile=profile, exif=exif, xmp=xmp, dpi=dpi)
    return Written(data=data, suffix=SUFFIXES[container], notes=tuple(notes))


def _colored(
    color_HWC: NDArray[Any], source: PhotoSource, output: Output, container: str, depth_bits: int, notes: list[str]
) -> tuple[NDArray[Any], bytes | None]:
    """Pixels, and the profile that they are in (None: sRGB, and none is embedded)."""
    if source.profile is None:
        return from_unit(color_HWC, depth_bits), None
    if output.in_srgb and not _is_srgb(source.profile):
        return from_unit(color_HWC, depth_bits), srgb_profile()
    if container == "PNG" and len(source.profile) > MAX_PROFILE_IN_PNG_BYTES:
        notes.append("its source's profile is larger than readers of PNG take, so it is in sRGB (TIFF holds it)")
        return from_unit(color_HWC, depth_bits), srgb_profile()
    try:
        return from_srgb(color_HWC, source.profile, depth_bits), source.profile
    except UnreadableProfile as error:  # a scanner's: made to be read by, not to write in
        notes.append(f"its source's profile cannot be written in ({error}), so it is in sRGB")
        return from_unit(color_HWC, depth_bits), srgb_profile()


def _is_srgb(profile: bytes) -> bool:
    curves = read_profile(profile)
    return curves is not None and curves.is_srgb


def _encoded(
    container: str, pixels_HWC: NDArray[Any], output: Output, *, profile: bytes | None, exif: bytes | None, xmp: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:  # fmt: skip
    if container == "PNG":
        return png(pixels_HWC, profile=profile, exif=exif, xmp=xmp, dpi=dpi, texts=output.texts)
    if container == "TIFF":
        return tiff(pixels_HWC, profile=profile, exif=exif, xmp=xmp, dpi=dpi)
    file = io.BytesIO()
    image = Image.fromarray(pixels_HWC)
    options: dict[str, object] = {"icc_profile": profile} if profile else {}
    if container == "WEBP" and output.texts:
        exif = _with_texts(exif, output.texts)
    if exif:
        options["exif"] = exif
    if xmp:
        options["xmp"] = xmp
    if container == "WEBP":
        image.save(file, "WEBP", quality=output.quality, lossless=output.quality == 100, exact=True, method=4, **options)
    else:
        if dpi:
            options["dpi"] = tuple(round(value) for value in dpi)
        # Above 90 every pixel keeps its own colour, as cameras do in "fine".
        image.save(file, "JPEG", quality=output.quality, subsampling=0 if output.quality > 90 else 2, **options)
    return file.getvalue()


def _with_texts(exif: bytes | None, texts: Mapping[str, str]) -> bytes:
    """As ComfyUI keeps them in WebP (H comfy_extras/nodes_images.py, SaveAnimatedWEBP): `prompt:...` in Model, others before."""
    block = Image.Exif()
    if exif:
        block.load(exif)
    free = [tag for tag in TEXT_TAGS if tag not in block]
    for tag, (key, text) in zip(free, texts.items(), strict=False):
        block[tag] = f"{key}:{text}"
    return block.tobytes()
