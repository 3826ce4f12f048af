"""EXIF, XMP and DPI: read from a source, and made to fit its result (upright, of another size, of another colour space)."""

from __future__ import annotations

import re

from PIL import Image

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
COLOR_SPACE, WIDTH, HEIGHT = 0xA001, 0xA002, 0xA003
"""Tags of the EXIF IFD (Exif 2.32, 4.6.5)."""
MAKER_NOTE, INTEROP_IFD = 0x927C, 0xA005
SRGB, UNCALIBRATED, ADOBE_RGB = 1, 0xFFFF, 2
"""Values of ColorSpace. 2 is not in the standard, but cameras write it for Adobe RGB."""
TELLING = frozenset(
    {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
)
"""Tags of IFD 0 that tell of the picture (title, camera, software, dates, author, rating, rights, what Windows calls title to
subject). The others are about how that file keeps its pixels."""
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>))\s*[2-8]")
MAX_IN_JPEG_BYTES = {"EXIF": 65533, "XMP": 65533 - 29}
"""What one segment of a JPEG holds, without its length and, for XMP, its name (JPEG: B.1.1.4; XMP part 3, 1.1.3)."""
MAX_DPI = 100_000.0
"""Beyond that it is nonsense, and too large for a PNG's pHYs."""


def orientation_of(image: Image.Image) -> int:
    """EXIF's 1 to 8; 1 where it says nothing or nonsense."""
    value = _exif_of(image).get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says Adobe RGB, which cameras do in place of a profile (DCF 2.0: interoperability index R03)."""
    inner = _exif_of(image).get_ifd(EXIF_IFD)
    space = inner.get(COLOR_SPACE)
    index = _exif_of(image).get_ifd(INTEROP_IFD).get(1)
    return space == ADOBE_RGB or (space == UNCALIBRATED and index == "R03")


def exif_block(image: Image.Image) -> bytes | None:
    """What EXIF tells of the picture, for a result that is upright: no thumbnail, no word on how the pixels lie in the file."""
    old, new = _exif_of(image), Image.Exif()
    for tag, value in old.items():
        if tag in TELLING:
            new[tag] = value
    for ifd in (EXIF_IFD, GPS_IFD):
        if inner := {tag: value for tag, value in old.get_ifd(ifd).items() if tag != INTEROP_IFD}:
            new.get_ifd(ifd).update(inner)
    if not len(new) and not new.get_ifd(EXIF_IFD) and not new.get_ifd(GPS_IFD):
        return None
    new[ORIENTATION] = 1
    return _bytes_of(new)


def fitted_exif(block: bytes | None, *, width_px: int, height_px: int, in_srgb: bool) -> bytes | None:
    """The block for a result of that size and colour space."""
    if block is None:
        return None
    exif = Image.Exif()
    exif.load(block)
    inner = exif.get_ifd(EXIF_IFD)
    if inner:
        inner[WIDTH], inner[HEIGHT] = width_px, height_px
        inner[COLOR_SPACE] = SRGB if in_srgb else UNCALIBRATED
    return _bytes_of(exif)


def xmp_block(image: Image.Image) -> bytes | None:
    """XMP as the file has it, but for its own copy of the orientation."""
    value = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(value, str):
        value = value.encode()
    return XMP_ORIENTATION.sub(rb"\g<1>1", value).rstrip(b"\0") if isinstance(value, bytes) and value.strip(b"\0 ") else None


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, where the file says them; some say 0 or 1, which is nothing."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < MAX_DPI and 1 < y < MAX_DPI else None


def for_jpeg(block: bytes | None, kind: str, notes: list[str]) -> bytes | None:
    """The block, or None and a note if a JPEG does not hold it."""
    if block is None or len(block) <= MAX_IN_JPEG_BYTES[kind]:
        return block
    notes.append(
        f"JPEG holds 64 KB of {kind} and its source has {len(block) // 1024}, so it has none (PNG, TIFF and WebP hold it)"
    )
    return None


def _exif_of(image: Image.Image) -> Image.Exif:
    """Damaged blocks are as good as none: the picture is what counts."""
    try:
        return image.getexif()
    except Exception:  # Pillow's reader raises many kinds, down to struct.error and SyntaxError
        return Image.Exif()


def as_it_was(value: object) -> object:
    """A text as the bytes that it was: Pillow reads any as Latin-1, and would write "?" for what is not ASCII."""
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def _bytes_of(exif: Image.Exif) -> bytes | None:
    """Without the maker's note where Pillow cannot write it."""
    for directory in (exif, exif.get_ifd(EXIF_IFD), exif.get_ifd(GPS_IFD)):
        for tag, value in list(directory.items()):
            directory[tag] = as_it_was(value)
    block = _packed(exif)
    if block is None:
        exif.get_ifd(EXIF_IFD).pop(MAKER_NOTE, None)
        block = _packed(exif)
    return block


def _packed(exif: Image.Exif) -> bytes | None:
    try:
        return exif.tobytes()
    except Exception:  # a value of another kind than its tag has: struct.error, TypeError, ValueError
        return None
