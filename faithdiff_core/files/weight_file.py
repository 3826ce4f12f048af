"""What a file is that should hold weights, by its first bytes and its structure: the checks, and the words, of nodes and trainer.

What downloads leave in a weight file's place (a pointer, a web page, an index, another format) is called by its name. Messages
have the form "expected X, got Y; do Z" without the file's name, which the caller adds.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Sequence
from typing import Any, cast

import torch

from .checks import first_line, named, shown
from .pickle_check import PickleError, check_pickle
from .safetensors_check import check_safetensors

SAFETENSORS_ENDINGS = (".safetensors", ".sft")
AGAIN = "get the file again"
MAX_INDEX_BYTES = 16 * 2**20
"""Of an index of shards. 20,000 tensors (the most in a file, `safetensors_check`) by names of some 400 letters are 8 MB."""

_HEAD_BYTES = 4096
"""Enough for a pointer (about 130 bytes) and for what a web page writes before its first mark."""
_PICKLE_MARKS = (b"\x80", b"PK\x03\x04")
"""First bytes of every pickle since protocol 2, and of the zip that torch.save writes around it."""
_GZIP_MARK = b"\x1f\x8b"
"""RFC 1952, 2.3.1."""
_MAX_LEVELS = 3
"""Of tables in one another, as in {"model": {"state_dict": ...}}: two were seen, and every level is one more look."""
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "unet",
    "net",
    "network",
    "params",
    "params_ema",
    "ema",
    "weights",
)
"""Names under which trainers keep the weights beside their own state (Lightning, torch's tutorials, DeepSpeed, BasicSR, ...)."""


def check_weight_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a safetensors file (True) or a torch pickle (False), and sound by what its structure declares.

    No weights are read, nothing in it is run, and no more memory is taken than the file has.

    Raises:
        ValueError: it is neither (the message says what it is), damaged, or a pickle that wants to run code.
        OSError: it cannot be read.
    """
    is_safetensors = os.path.splitext(path)[1].lower() in SAFETENSORS_ENDINGS
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if (other := _other_kind(path, head)) is not None:
        raise ValueError(other)
    if not is_safetensors and head[8:9] == b"{":  # a JSON header after its length in 8 bytes
        raise ValueError("expected a torch pickle, got a safetensors file under another name; rename it to end in .safetensors")
    if not is_safetensors and not head.startswith(_PICKLE_MARKS):
        raise ValueError(
            f"expected a weight file (.safetensors, or a torch pickle such as FaithDiff.bin), got something else; {AGAIN}"
        )
    if is_safetensors and head.startswith(_PICKLE_MARKS) and head[8:9] != b"{":
        raise ValueError("expected a .safetensors file, got a torch pickle under that name; rename it to end in .bin")
    try:
        if is_safetensors:
            check_safetensors(path)
        else:
            check_pickle(path)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # the format's reader raises kinds of its own
        raise ValueError(why_unreadable(error, is_safetensors=is_safetensors)) from None
    return is_safetensors


def why_unreadable(error: Exception, *, is_safetensors: bool) -> str:
    """The message for what a reader has raised."""
    if is_safetensors:
        reason = "expected a whole .safetensors file, got one that cannot be read: cut short, or no safetensors at all"
        reason += f" ({first_line(error)})"
    elif isinstance(error, PickleError) and error.wants_code:
        reason = "expected weights only, got a pickle that asks to run code; it was refused and nothing was run"
        reason += f" ({first_line(error)})"
    else:
        reason = f"expected a whole torch pickle of weights, got one that cannot be read ({first_line(error)})"
    return f"{reason}; {AGAIN}"


def named_tensors(value: object, table: str | None = None) -> dict[str, torch.Tensor]:
    """The table of named tensors in what a pickle holds: itself, or the only one that it wraps beside a trainer's own state.

    Args:
        value: what torch has read.
        table: the name of the one to take; None takes "state_dict", or the only one.

    Raises:
        ValueError: there is none, none of that name, or several.
    """
    if table is not None:
        tables: dict[Any, Any] = cast("dict[Any, Any]", value) if isinstance(value, dict) else {}
        if table not in tables:
            held = named([name for name in tables if isinstance(name, str)]) or "none"
            raise ValueError(f"expected a table {shown(table)} in the file, got {held}; choose one that is there")
        return named_tensors(tables[table])
    inner: Any = value
    for _ in range(_MAX_LEVELS):
        if not isinstance(inner, dict):
            break
        entries = cast("dict[Any, Any]", inner)
        if _is_table(entries):
            return entries
        wrapped = [name for name in _WRAPPERS if isinstance(entries.get(name), dict) and entries[name]]
        wrapped = ["state_dict"] if "state_dict" in wrapped else wrapped
        if len(wrapped) > 1:
            raise ValueError(
                f"expected one table of weights, got {len(wrapped)} ({', '.join(wrapped)}); choose with `python -m training "
                f"convert FILE --table {wrapped[0]} --out FaithDiff.safetensors`"
            )
        if not wrapped:
            break
        inner = entries[wrapped[0]]
    kind = type(cast("object", inner)).__name__
    raise ValueError(f"expected a table of named tensors, got a pickle of {kind} with other things in it; {AGAIN}")


def index_alone(shards: Sequence[str]) -> str:
    """The message about an index without what it lists."""
    return (
        f"expected weights, got an index, which has none itself but names {len(shards)} shards ({named(shards)}); get all of "
        "them into its folder and run `python -m training convert FOLDER --out FaithDiff.safetensors`"
    )


def parse_index(text: bytes) -> dict[str, str] | None:
    """{tensor: shard's file name} of an index of shards; None for anything else. The names are not checked."""
    try:
        value = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # ValueError: no UTF-8, no JSON, a number of more than 4300 digits
        return None
    weight_map = cast("dict[str, Any]", value).get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        return None
    found = cast("dict[str, Any]", weight_map)
    return found if all(isinstance(name, str) for name in found.values()) else None


def _is_table(entries: dict[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in entries.items())


def _other_kind(path: str | os.PathLike[str], head: bytes) -> str | None:
    """The message for what is known not to be a weight file."""
    if not head:
        return f"expected weights, got an empty file; {AGAIN}"
    if head.startswith(b"version https://git-lfs"):  # the Git LFS specification's first line
        size = re.search(rb"^size (\d{1,15})$", head, re.MULTILINE)
        stands_for = f" ({int(size[1]) / 1e9:.3g} GB)" if size else ""
        return (
            f"expected weights, got a Git LFS pointer, a short text in its place{stands_for}; run `git lfs pull` in its "
            f"repository, or {AGAIN}"
        )
    if head.startswith(b"GGUF"):  # the GGUF specification's magic number
        return (
            "expected a .safetensors file or a torch pickle, got a GGUF file; load it with a GGUF loader, as the base_model of "
            f"an adapter file, or {AGAIN} as .safetensors"
        )
    text = _unpacked(head) if head.startswith(_GZIP_MARK) else head
    start = text.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:9].lower() == b"<!doctype" or start[:5].lower() in (b"<html", b"<?xml", b"<head"):
        return (
            "expected weights, got a web page (HTML); the site wants a login or a click: open the file's page in a browser, "
            f"and {AGAIN}"
        )
    if head.startswith(_GZIP_MARK):
        return f"expected weights, got a gzip archive; unpack it, or {AGAIN}"
    if start[:1] in (b"{", b"[") and b"\0" not in head:  # a safetensors header's length has zeros
        return _json_kind(path)
    return None


def _json_kind(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        weight_map = parse_index(file.read(min(MAX_INDEX_BYTES, os.path.getsize(path))))
    if weight_map is not None:
        return index_alone(sorted(set(weight_map.values())))
    return f"expected weights, got a text (JSON), such as a site's error message; {AGAIN}"


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)  # 31: with gzip's own header (zlib's manual)
    except zlib.error:
        return b""
