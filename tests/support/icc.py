"""Colour profiles made by rule: ICC v2 files of a matrix and a gamma, so that no binary need be kept."""

from __future__ import annotations

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D65_XY = (0.3127, 0.3290)
SPACES = {
    "p3": (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65_XY, None),
    "adobe": (((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)), D65_XY, 563 / 256),
    "prophoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), 1.8),
    "srgb": (((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)), D65_XY, None),
}
"""Primaries, white (CIE xy), gamma; None: sRGB's curve. SMPTE EG 432-1, Adobe RGB (1998), ISO 22028-2, IEC 61966-2-1."""


def _xyz(xy: tuple[float, float]) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def colorants(name: str) -> np.ndarray:
    """(3, 3) device RGB to XYZ at D50."""
    primaries, white_xy, _ = SPACES[name]
    white = _xyz(white_xy)
    raw = np.stack([_xyz(xy) for xy in primaries], axis=-1)
    to_white = raw * np.linalg.solve(raw, white)
    scale = np.diag((BRADFORD @ np.array(D50)) / (BRADFORD @ white))
    return np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ to_white


def curve(name: str) -> bytes:
    gamma = SPACES[name][2]
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    values = np.linspace(0, 1, 4096)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", 4096) + np.rint(linear * 65535).astype(">u2").tobytes()


def _number(values) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def matrix_profile(name: str) -> bytes:
    """One of SPACES."""
    matrix = colorants(name)
    trc = curve(name)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + _number(D50),
        **{key: b"XYZ \0\0\0\0" + _number(matrix[:, index]) for index, key in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), trc),
    }
    return _assembled(b"mntrRGB ", tags)


def grey_profile(gamma: float) -> bytes:
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + _number(D50),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0",
    }
    return _assembled(b"mntrGRAY", tags)


def _assembled(kind_and_space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """ICC.1 (v2): header of 128 bytes, table of tags, tags at multiples of 4."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    header = struct.pack(">I", size) + b"lcms" + bytes.fromhex("02400000") + kind_and_space + b"XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + _number(D50)
    return header + bytes(128 - len(header)) + table + body
