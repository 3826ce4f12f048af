"""Whether a weight file is what it should be: a download against its published hash, a written file against what was meant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from faithdiff_core.files.safetensors_check import check_safetensors
from training.common.tensor_files import chunks


def require_sha256(path: Path, expected: str) -> None:
    """Reads the whole file, with a bar.

    Raises:
        ValueError: no SHA-256, or another one than the file's.
    """
    expected = expected.strip().lower()
    if len(expected) != 64 or set(expected) - set("0123456789abcdef"):
        raise ValueError(f"expected --sha256 as 64 hexadecimal digits, got {expected!r}, copy it from the file's page")
    got = sha256(path)
    if got != expected:
        raise ValueError(
            f"expected {path} with SHA-256 {expected}, got {got}, the download is incomplete or another file: fetch it again"
        )


def sha256(path: Path) -> str:
    """Of a file, as 64 hexadecimal digits, with a progress bar."""
    digest = hashlib.sha256()
    with tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc="hash", leave=False) as bar:
        for chunk in chunks(path):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def require_written(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Reads the file back, with a bar, and compares every value.

    Raises:
        OSError: other tensors than those that were to be written; the file is deleted.
    """
    try:
        count = 0
        for name, tensor in tqdm(_tensors(path), total=len(state), unit="tensor", desc="check", leave=False):
            if name not in state or not _same(tensor, state[name]):
                raise OSError(
                    f"expected {path} to hold what was written, got another {name}, the disk may be failing: try another one"
                )
            count += 1
        if count != len(state):
            raise OSError(f"expected {len(state)} tensors in {path}, got {count}, the disk may be failing: try another one")
    except OSError:
        path.unlink(missing_ok=True)
        raise


def is_own(path: Path) -> bool:
    """Whether the file has a header of this project, so that one of the kind may take its place. A .bin has none.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix != ".safetensors":
        return False
    try:
        check_safetensors(path)
        with safe_open(path, "pt") as file:
            return any(name.startswith("faithdiff.") for name in file.metadata() or {})
    except (SafetensorError, ValueError):
        return False


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if path.suffix == ".bin":
        yield from torch.load(path, map_location="cpu", weights_only=True, mmap=True).items()
        return
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            yield name, file.get_tensor(name)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
