"""Files of tensors, read mapped and without running code, written whole or not at all: .safetensors and torch pickles
(FaithDiff's own among them), and the archives of torch.save that this package writes.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from faithdiff_core.files.checkpoint import FaithDiffParts, split_state_dict
from faithdiff_core.files.checks import first_line
from faithdiff_core.files.pickle_check import check_pickle
from faithdiff_core.files.safetensors_check import check_safetensors
from training.common.files import write_atomically

State = dict[str, torch.Tensor]
CHUNK_BYTES = 16 * 2**20


def read_tensors(source: Path) -> tuple[State, dict[str, str]]:
    """All tensors of a file, mapped, and its safetensors header entries ({} for a pickle). No code in a pickle is ever run, and
    none is read that declares more than it holds.

    Raises:
        ValueError: the file is missing, damaged or holds other things.
    """
    if not source.is_file():
        raise ValueError(f"expected a file of weights, got {source}, which does not exist, check the path")
    try:
        if source.suffix in (".safetensors", ".sft"):
            check_safetensors(source)
            with safe_open(source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no dict)
        check_pickle(source)
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        reason = first_line(error)
        raise ValueError(f"expected a file of weights, got {source}, which cannot be read ({reason}), get it again") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ValueError(f"expected a table of named tensors, got other things in {source}, get it again")
    return state, {}


def read_parts(source: Path) -> FaithDiffParts:
    """A FaithDiff file of any layout, taken apart.

    Raises:
        ValueError: as from `read_tensors`; no FaithDiff file.
    """
    return split_state_dict(*read_tensors(source))


def chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes, CHUNK_BYTES at a time.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def file_digest(path: Path) -> str:
    """sha256 of a file, the number that model sites show beside a download. About a second a GB."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def file_crc32(path: Path) -> int:
    """CRC-32 of a file: for damage, not against forgery.

    Raises:
        OSError: it cannot be read.
    """
    checksum = 0
    for chunk in chunks(path):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def write_archive(path: Path, value: Any) -> None:
    """torch.save, atomically.

    Raises:
        OSError: a full disk, for example.
    """

    def write(temporary: Path) -> None:
        try:
            with temporary.open("wb") as file:
                torch.save(value, file)
        except RuntimeError as error:
            # Closing its archive, torch stumbles over the failed write and hides it.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    write_atomically(path, write)


def read_archive(path: Path) -> Any:
    """What the file holds, its tensors mapped: read from the file as they are used. Nothing in it is executed (weights_only).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    try:
        # torch does not look at the checksums it writes.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"its part {broken} has another checksum")
        check_pickle(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # torch, pickle and zipfile raise many kinds for a damaged file
        raise system_error(error, path) or ValueError(f"{type(error).__name__}") from error


def system_error(error: Exception, path: Path) -> OSError | None:
    """What the system said when torch could not open or map the file (ATen/MapAllocator.cpp); None for another error."""
    found = re.match(r"unable to .*\((\d+)\)$", str(error).partition("\n")[0]) if isinstance(error, RuntimeError) else None
    return OSError(int(found[1]), os.strerror(int(found[1])), str(path)) if found else None
