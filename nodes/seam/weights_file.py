"""Reading a weight file by the host's reader, with one clear message where that fails."""

from __future__ import annotations

import os

import comfy.utils
import torch

from ...faithdiff_core.files.checks import first_line
from ...faithdiff_core.files.pickle_check import PickleError, check_pickle
from ...faithdiff_core.files.safetensors_check import check_safetensors

PICKLE_MARK = b"\x80"
"""First byte of every pickle since protocol 2."""
ARCHIVE_MARK = b"PK\x03\x04"
"""Of the zip that torch.save writes around it."""


def read_weights(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a file and its safetensors header entries ({} for a pickle).

    Safetensors are memory-mapped; pickles are read with `weights_only`, which runs no code. Before that both are looked at by
    readers that believe nothing: what a file declares it must hold, so that no small one takes much memory.

    Raises:
        ValueError: not a weight file, a damaged one, or a pickle that wants to run code. The message names the file.
    """
    name = os.path.basename(path)
    again = "get the file again"
    is_safetensors = path.lower().endswith((".safetensors", ".sft"))
    if not is_safetensors and _looks_like_safetensors(path):
        raise ValueError(
            f"{name}: expected a torch pickle, got a safetensors file under another name; rename it to end in .safetensors"
        )
    if not is_safetensors and not _looks_like_pickle(path):
        raise ValueError(
            f"{name}: expected a weight file (.safetensors, or a torch pickle such as FaithDiff.bin), got something else; {again}"
        )
    try:
        if is_safetensors:
            check_safetensors(path)  # the host has a reader that takes offsets and lengths as they come
        else:
            check_pickle(path)
        state, header = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except MemoryError:
        raise
    except Exception as e:  # the readers raise whatever they like, down to KeyError; an interrupt is a BaseException and passes
        if is_safetensors:
            reason = f"expected a whole .safetensors file, got one that is cut short or no safetensors at all ({first_line(e)})"
        elif isinstance(e, PickleError) and e.wants_code:
            reason = "expected weights only, got a pickle that asks to run code; it was refused and nothing was run"
            reason += f" ({first_line(e)})"
        else:
            reason = f"expected a whole torch pickle of weights, got one that cannot be read ({first_line(e)})"
        raise ValueError(f"{name}: {reason}; {again}") from None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in state.items()):
        raise ValueError(
            f"{name}: expected a table of named tensors, got a pickle of {type(state).__name__} with other things in it; {again}"
        )
    try:
        # Quantised files: the host's older marks, and those in the header, become the ones its layers read.
        state, _ = comfy.utils.convert_old_quants(state, "", metadata=header)
    except Exception as e:  # it trusts the marks
        raise ValueError(
            f"{name}: expected whole or no marks of quantised weights, got some that make no sense ({first_line(e)}); {again}"
        ) from None
    return state, dict(header or {})


def _looks_like_pickle(path: str) -> bool:
    with open(path, "rb") as f:
        return f.read(4).startswith((PICKLE_MARK, ARCHIVE_MARK))


def _looks_like_safetensors(path: str) -> bool:
    with open(path, "rb") as f:
        return f.read(9)[8:] == b"{"  # a JSON header after its length in 8 bytes
