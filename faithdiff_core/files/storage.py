"""Writing weight files so that a half-written one never stands under its final name."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - its PathLike does not say of what


def write_safetensors(path: str | Path, state: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Writes a .safetensors file through a temporary neighbour.

    On any failure nothing is left behind, and what a killed process left goes with the next write of the same file.

    Raises:
        OSError: on a full disk, for example.
    """
    path = Path(path)
    # A folder, because the format's writer makes a temporary file of its own, which a killed process would leave beside `path`.
    folder = path.with_name(f".{path.name}.partial")
    partial = folder / path.name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        if folder.is_file():  # what an earlier version left of a killed process
            folder.unlink()
        folder.mkdir()
        partial.touch()
        mode = partial.stat().st_mode  # as the user's umask says; the format's writer makes files that only their owner reads
        # None, because the format's writer makes an unreadable file of no tensors and an empty header.
        save_file({k: _own(t) for k, t in state.items()}, partial, metadata=dict(header) or None)
        partial.chmod(mode)
        with partial.open("rb+") as written:
            _sort_metadata(written)
            written.flush()
            os.fsync(written.fileno())
        os.replace(partial, path)
    except SafetensorError as error:  # its writer wraps what the system said
        raise OSError(errno.EIO, f"{error}", str(path)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sort_metadata(file: BinaryIO) -> None:
    """Puts the header's entries in order.

    The format's writer has them in another one each time, and equal weights should make equal files.
    """
    length_bytes = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length_bytes))
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length_bytes)
        assert len(text) == length_bytes, "the header has another length than the format's writer gave it"
        file.seek(8)
        file.write(text)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on a storage of its own: the format refuses views that share one."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
