"""Reading a weight file by the host's reader, with one clear message where that fails."""

from __future__ import annotations

import os
import zipfile

import comfy.utils
import torch

PICKLE_MARK = b"\x80"  # first byte of every pickle since protocol 2


def read_weights(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a file and its safetensors header entries ({} for a pickle).

    Safetensors are memory-mapped; pickles are read with `weights_only`, which runs no code.

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
        state, header = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except MemoryError:
        raise
    except Exception as e:  # the readers raise whatever they like, down to KeyError; an interrupt is a BaseException and passes
        if is_safetensors:
            reason = f"expected a whole .safetensors file, got one that is cut short or no safetensors at all ({_first_line(e)})"
        elif _wants_to_run_code(e):
            reason = "expected weights only, got a pickle that asks to run code; it was refused and nothing was run"
        else:
            reason = f"expected a whole torch pickle of weights, got one that cannot be read ({_first_line(e)})"
        raise ValueError(f"{name}: {reason}; {again}") from None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in state.items()):
        raise ValueError(
            f"{name}: expected a table of named tensors, got a pickle of {type(state).__name__} with other things in it; {again}"
        )
    # Quantised files: the host's older marks, and those in the header, become the ones its layers read.
    state, _ = comfy.utils.convert_old_quants(state, "", metadata=header)
    return state, dict(header or {})


def _looks_like_pickle(path: str) -> bool:
    if zipfile.is_zipfile(path):
        return True
    with open(path, "rb") as f:
        return f.read(1) == PICKLE_MARK


def _looks_like_safetensors(path: str) -> bool:
    with open(path, "rb") as f:
        return f.read(9)[8:] == b"{"  # a JSON header after its length in 8 bytes


def _wants_to_run_code(error: Exception) -> bool:
    return any(word in str(error) for word in ("GLOBAL", "allowed global", "Unsupported class", "REDUCE", "unsafe"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
