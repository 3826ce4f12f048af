"""A FaithDiff pickle to half precision in a .safetensors, one tensor in memory at a time, and compared with it afterwards.

What it writes is what `python -m training convert FILE --dtype fp16` writes, which holds the whole network in memory for that.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

from ..files.checkpoint import assemble_adapter, assemble_full
from ..files.checks import shown
from ..files.shards import whole_parts
from ..files.weight_file import check_weight_file, named_tensors, why_unreadable
from .progress import Told

State = dict[str, torch.Tensor]

UNFINISHED = ".unfinished"
_ALIGNED_BYTES = 8
"""The header's length is a multiple of it (safetensors, Format)."""
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""As safetensors' header calls them."""
_RANK = ("F64", "I64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
"""The order of types in the file, as the format's own writer has it: the widest first, so that each is aligned."""


def write_half(source: Path, out: Path, told: Told) -> None:
    """Writes `source`, FaithDiff.bin or alike, in fp16 as `out`, our full layout, and compares each tensor with `source`.

    Under its final name only when that has gone well. Numbers that are none of floating point stay as they are.

    Raises:
        ValueError: no FaithDiff pickle, or one that fp16 cannot hold.
        OSError: the disk.
        Whatever `told` raises. After any of these `out` is as it was.
    """
    parts = whole_parts(source.name, _mapped(source))
    state = assemble_adapter(parts) if parts.unet is None else assemble_full(parts)
    partial = out.with_name(f".{out.name}{UNFINISHED}")
    total = sum(_half_bytes(tensor) for tensor in state.values())
    try:
        _write(partial, state, parts.metadata.to_header(), f"{source.name}: converting", total, told)
        _compare(partial, state, f"{source.name}: comparing", total, told)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _mapped(source: Path) -> State:
    """The tensors of a torch pickle, in memory only where they are looked at. It is walked through first, and runs no code."""
    if check_weight_file(source):
        raise ValueError(f"expected a torch pickle such as FaithDiff.bin, got {source.name}, which is none; leave it as it is")
    try:
        held = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise ValueError(f"{why_unreadable(error, is_safetensors=False)} ({source.name})") from None
    return named_tensors(held)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()


def _half_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size())


def _write(path: Path, state: State, metadata: Mapping[str, str], phase: str, total: int, told: Told) -> None:
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    types = {name: _NAMES[torch.float16 if tensor.is_floating_point() else tensor.dtype] for name, tensor in state.items()}
    order, place = sorted(state, key=lambda name: (_RANK.index(types[name]), name)), 0
    for name in order:
        end = place + _half_bytes(state[name])
        table[name] = {"dtype": types[name], "shape": list(state[name].shape), "data_offsets": [place, end]}
        place = end
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNED_BYTES)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        done = 0
        for name in order:
            half = _half(state[name])
            if half.is_floating_point() and not bool(torch.isfinite(half).all()):
                raise ValueError(
                    f"expected weights that fp16 can hold, got larger ones or NaN in {shown(name)}; use the .bin as it is"
                )
            file.write(cast("Any", half.reshape(-1).view(torch.uint8).numpy()))
            done += half.nbytes
            told(phase, done, total)
        file.flush()
        os.fsync(file.fileno())


def _compare(path: Path, state: State, phase: str, total: int, told: Told) -> None:
    """Raises OSError where the file does not hold `state` in fp16."""
    done = 0
    with cast("Any", safe_open(path, framework="pt")) as file:
        same = set(file.keys()) == set(state)
        for name in state if same else ():
            tensor = file.get_tensor(name)
            same = same and torch.equal(tensor, _half(state[name]))
            done += tensor.nbytes
            told(phase, done, total)
    if not same:
        raise OSError(f"expected {path.name} to hold what was written, got other values, the disk may be failing: try another")
