"""Reading a weight file by the host's reader, with one clear message where that fails."""

from __future__ import annotations

import os

import comfy.utils
import torch

from ...faithdiff_core.files.checks import first_line
from ...faithdiff_core.files.weight_file import AGAIN, SAFETENSORS_ENDINGS, check_weight_file, named_tensors, why_unreadable


def read_weights(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a file and its safetensors header entries ({} for a pickle).

    Safetensors are memory-mapped; pickles are read with `weights_only`, which runs no code. Before that both are looked at by
    readers that believe nothing: what a file declares it must hold, so that no small one takes much memory.

    Raises:
        ValueError: not a weight file, a damaged one, or a pickle that wants to run code. The message names the file.
    """
    name = os.path.basename(path)
    try:
        is_safetensors = check_weight_file(path)  # the host has a reader that takes offsets and lengths as they come
        state, header = _by_host(path, is_safetensors=is_safetensors)
    except OSError as e:
        raise ValueError(f"{name}: {why_unreadable(e, is_safetensors=path.lower().endswith(SAFETENSORS_ENDINGS))}") from None
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None
    try:
        # Quantised files: the host's older marks, and those in the header, become the ones its layers read.
        state, _ = comfy.utils.convert_old_quants(state, "", metadata=header)
    except Exception as e:  # it trusts the marks
        raise ValueError(
            f"{name}: expected whole or no marks of quantised weights, got some that make no sense ({first_line(e)}); {AGAIN}"
        ) from None
    return state, dict(header or {})


def _by_host(path: str, *, is_safetensors: bool) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    try:
        state, header = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except MemoryError:
        raise
    except Exception as e:  # it raises whatever it likes, down to KeyError; an interrupt is a BaseException and passes
        raise ValueError(why_unreadable(e, is_safetensors=is_safetensors)) from None
    return named_tensors(state), header
