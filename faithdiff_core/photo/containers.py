"""PNG and TIFF of 8 or 16 bits a channel, with colour, metadata and texts: Pillow writes no colour picture of 16 bits.

Reading, and JPEG and WebP, are Pillow's.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from .metadata import EXIF_IFD, GPS_IFD, as_it_was

COMPRESSION = 6
"""zlib's usual."""
STRIP_BYTES = 2**22
"""Of pixels, filtered and compressed at a time."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOR = {3: 2, 4: 6}
"""Channels -> colour type (PNG 11.2.2)."""
INCH_M = 0.0254
FILTER_UP = 2
"""PNG 9.2: each byte minus that above it. As small as choosing a filter by row on photos, within a few percent, and quick."""


def png(
    pixels_HWC: NDArray[Any], *, profile: bytes | None, exif: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None,
    texts: Mapping[str, str],
) -> bytes:  # fmt: skip
    """uint8 or uint16 (H, W, 3 or 4) as PNG. `texts`: keyword -> text, as ComfyUI embeds its workflow."""
    height, width, channels = pixels_HWC.shape
    depth_bits = 8 * pixels_HWC.dtype.itemsize
    parts = [SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth_bits, PNG_COLOR[channels], 0, 0, 0))]
    if profile:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    else:
        parts.append(_chunk(b"sRGB", b"\0"))  # perceptual intent
    if dpi:
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(value / INCH_M) for value in dpi), 1)))
    if exif:
        parts.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp:
        parts.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    for keyword, text in texts.items():
        parts.append(_text_chunk(keyword, text))
    parts += [_chunk(b"IDAT", data) for data in _compressed(_png_rows(pixels_HWC))]
    return b"".join([*parts, _chunk(b"IEND", b"")])


def tiff(
    pixels_HWC: NDArray[Any], *, profile: bytes | None, exif: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None
) -> bytes:  # fmt: skip
    """uint8 or uint16 (H, W, 3 or 4, alpha not multiplied in) as TIFF in strips, deflate with horizontal differences."""
    height, width, channels = pixels_HWC.shape
    ifd = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    if exif:
        _add_exif(ifd, exif)
    rows = max(1, STRIP_BYTES // (width * channels * pixels_HWC.dtype.itemsize))
    strips = [zlib.compress(_differences(pixels_HWC[top : top + rows]), COMPRESSION) for top in range(0, height, rows)]
    ifd[256], ifd[257], ifd[258] = width, height, (8 * pixels_HWC.dtype.itemsize,) * channels
    ifd[259], ifd[262], ifd[277], ifd[278], ifd[317] = 8, 2, channels, rows, 2  # deflate, RGB, samples, rows, differences
    ends = np.cumsum([0, *(len(strip) for strip in strips)])
    ifd[273], ifd[279] = tuple(int(start) for start in ends[:-1]), tuple(len(strip) for strip in strips)
    if channels == 4:
        ifd[338] = (2,)  # alpha that is not multiplied in
    if dpi:
        ifd[282], ifd[283], ifd[296] = *dpi, 2  # an inch
    if xmp:
        ifd.tagtype[700] = 1
        ifd[700] = xmp
    if profile:
        ifd.tagtype[34675] = 7
        ifd[34675] = profile
    file = io.BytesIO()
    ifd.save(file)
    return file.getvalue() + b"".join(strips)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text_chunk(keyword: str, text: str) -> bytes:
    """As tEXt where Latin-1 will do, as readers of ComfyUI's pictures expect, else iTXt."""
    try:
        return _chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", keyword.encode("latin-1", "replace") + b"\0\0\0\0\0" + text.encode())


def _png_rows(pixels_HWC: NDArray[Any]) -> Iterator[bytes]:
    """Filtered rows, some MB at a time. 16 bits are big-endian (PNG 7.2)."""
    height = pixels_HWC.shape[0]
    row_bytes = pixels_HWC[0].nbytes
    above = np.zeros((1, row_bytes), np.uint8)
    rows = max(1, STRIP_BYTES // row_bytes)
    for top in range(0, height, rows):
        part = pixels_HWC[top : top + rows]
        part = np.ascontiguousarray(part.astype(">u2") if part.dtype == np.uint16 else part)
        data = part.view(np.uint8).reshape(part.shape[0], row_bytes)
        filtered = np.empty((part.shape[0], 1 + row_bytes), np.uint8)
        filtered[:, 0] = FILTER_UP
        filtered[:, 1:] = data - np.concatenate([above, data[:-1]])
        above = data[-1:]
        yield filtered.tobytes()


def _compressed(parts: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(COMPRESSION)
    for part in parts:
        if data := packer.compress(part):
            yield data
    yield packer.flush()


def _differences(pixels_HWC: NDArray[Any]) -> bytes:
    """Each sample minus that of its left neighbour (TIFF 6.0, section 14), little-endian."""
    made = pixels_HWC.copy()
    made[:, 1:] -= pixels_HWC[:, :-1]
    return made.astype("<u2" if made.dtype == np.uint16 else np.uint8).tobytes()


def _add_exif(ifd: TiffImagePlugin.ImageFileDirectory_v2, block: bytes) -> None:
    """In a TIFF, EXIF's first directory is the picture's own, and its others hang from it."""
    exif = Image.Exif()
    exif.load(block)
    for tag, value in exif.items():
        if tag not in (EXIF_IFD, GPS_IFD):
            if isinstance(value, str):
                ifd.tagtype[tag] = 2
            ifd[tag] = as_it_was(value)
    for tag in (EXIF_IFD, GPS_IFD):
        if inner := {name: as_it_was(value) for name, value in exif.get_ifd(tag).items()}:
            ifd.tagtype[tag] = 4
            ifd[tag] = inner
