"""Pieces of torch pickles, put together by hand: opcodes, storages, tensors, archives."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER of the format before 1.6


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def archive(
    pickled: bytes, records: dict[str, bytes] | None = None, *, name: str = "a", compress: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip as torch.save makes it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compress) as file:
        for place, data in {"data.pkl": pickled, "byteorder": b"little", **(records or {}), "version": b"3\n"}.items():
            file.writestr(f"{name}/{place}", data)
    return written.getvalue()


def saved(value: Any, *, legacy: bool = False) -> bytes:
    """What torch.save writes."""
    written = io.BytesIO()
    torch.save(value, written, _use_new_zipfile_serialization=not legacy)
    return written.getvalue()


def legacy(pickled: bytes, keys: bytes = pickle.dumps([], protocol=2)) -> bytes:
    """The format before torch 1.6 around a pickle. `keys`: the pickle behind it, which names the storages."""
    parts = [pickle.dumps(each, protocol=2) for each in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True})]
    return b"".join([*parts, pickled, keys])


def with_decoy(front: bytes) -> bytes:
    """A sound archive behind other bytes, whose directory says that one of its parts lies at the very beginning."""
    written = io.BytesIO(front)
    with zipfile.ZipFile(written, "a") as file:
        for place, data in {"data.pkl": table(), "decoy": b""}.items():
            file.writestr(f"a/{place}", data)
        file.getinfo("a/decoy").header_offset = 0
        file._didModify = True  # pyright: ignore[reportAttributeAccessIssue] - so that it writes its directory anew
    return written.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a" + _long(value)


def _long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return bytes([len(data)]) + data


def storage(kind: str = "FloatStorage", key: str = "0", numel: int = 4) -> bytes:
    """The persistent id of a storage."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"


def tensor(stored: bytes, *, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)) -> bytes:
    """A call of torch's own function for one tensor."""
    shape, steps = (b"(" + b"".join(map(number, each)) + b"t" for each in (size, stride))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + stored + number(offset) + shape + steps + b"\x89ccollections\nOrderedDict\n)RtR"


def table(**values: bytes) -> bytes:
    """A pickled dict."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in values.items()) + b"u."


def call(module: str, name: str, arguments: bytes = b")") -> bytes:
    return f"c{module}\n{name}\n".encode() + arguments + b"R"
