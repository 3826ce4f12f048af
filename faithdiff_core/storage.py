"""Writing weight files so that a half-written one never stands under its final name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_safetensors(path: str | Path, state: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Writes a .safetensors file through a temporary neighbour; on any failure nothing is left behind."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as the user's umask says; the format's writer makes files that only their owner reads
        # None, because the format's writer makes an unreadable file of no tensors and an empty header.
        save_file({k: _own(t) for k, t in state.items()}, partial, metadata=dict(header) or None)
        partial.chmod(mode)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on a storage of its own: the format refuses views that share one."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
