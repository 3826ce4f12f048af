"""What Pillow does not look at in a PNG: checksums of its pixels, its end, and colours that are told without a profile."""

from __future__ import annotations

import struct
import zlib

SIGNATURE_BYTES = 8
SRGB_GAMMA = 45455
"""1 / 2.2 in the units of gAMA (PNG 11.3.2.2); what writers of sRGB pictures put there."""
GAMMA_TOLERANCE = 1500
SRGB_CICP = (1, 13)
"""Primaries and transfer function of sRGB (ITU-T H.273, tables 2 and 3)."""


def check_png(data: bytes) -> dict[bytes, bytes]:
    """The chunks that tell of colours, by their names.

    Raises:
        ValueError: a wrong checksum, or a file that ends before its end.
    """
    found: dict[bytes, bytes] = {}
    at = SIGNATURE_BYTES
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], memoryview(data)[at + 8 : at + 8 + size]
        stored = data[at + 8 + size : at + 12 + size]
        if len(stored) == 4 and zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(stored, "big") and kind[:1].isupper():
            raise ValueError(f"expected a whole file, got one whose {kind.decode('latin-1')} part has another checksum")
        if kind in (b"gAMA", b"cICP", b"sRGB", b"iCCP"):
            found[kind] = bytes(body)
        if kind == b"IEND":
            return found
        at += 12 + size
    raise ValueError("expected a whole file, got one that is truncated: it has no end")


def png_warnings(chunks: dict[bytes, bytes]) -> list[str]:
    """Colours that are told by numbers, which are not used here."""
    if b"iCCP" in chunks or b"sRGB" in chunks:
        return []
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) == 4 and tuple(cicp[:2]) != SRGB_CICP:
        return [f"says another colour space (cICP {cicp[0]}, {cicp[1]}), which is not read; its colours were taken as sRGB"]
    gamma = chunks.get(b"gAMA", b"")
    if len(gamma) == 4 and abs(int.from_bytes(gamma, "big") - SRGB_GAMMA) > GAMMA_TOLERANCE:
        return ["says another gamma than sRGB's, which is not read; its colours were taken as sRGB"]
    return []
