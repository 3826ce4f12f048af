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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from faithdiff_core.files.checkpoint import FaithDiffParts
from faithdiff_core.files.pickle_check import check_pickle
from faithdiff_core.files.shards import find_shards, whole_parts
from faithdiff_core.files.weight_file import check_weight_file, named_tensors, why_unreadable
from faithdiff_core.lora import with_own_lora
from training.common.files import write_atomically

State = dict[str, torch.Tensor]
CHUNK_BYTES = 16 * 2**20


def read_tensors(source: Path, table: str | None = None) -> tuple[State, dict[str, str]]:
    """All tensors of a file, mapped, and its safetensors header entries ({} for a pickle). No code in a pickle is ever run, and
    none is read that declares more than it holds. An index of shards, or a folder with one, is read as one file.

    Args:
        table: which one to take of a pickle that wraps several (see `named_tensors`).

    Raises:
        ValueError: the file is missing, damaged or holds other things.
    """
    if not source.exists():
        raise ValueError(f"expected a file of weights, got {source}, which does not exist, check the path")
    if not is_spread(source):
        return _read_file(source, table)
    with _naming(source):
        shards = find_shards(source)
    states = {path.name: _read_file(path, table) for path in shards.paths}
    with _naming(source):
        shards.require_all({name: state for name, (state, _) in states.items()})
    merged, header = {}, {}
    for state, entries in states.values():
        merged.update(state)
        header.update(entries)
    return merged, header


def is_spread(source: Path) -> bool:
    """Whether a path means shards: a folder, or an index."""
    return source.is_dir() or source.suffix == ".json"


def weight_files(source: Path) -> list[Path]:
    """The files that hold the weights of a path given to `read_tensors`.

    Raises:
        ValueError: shards that are missing.
    """
    with _naming(source):
        return find_shards(source).paths if is_spread(source) else [source]


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """The core's messages, which the nodes have, too, with the path at the end."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} ({source})") from None


def _read_file(source: Path, table: str | None) -> tuple[State, dict[str, str]]:
    with _naming(source):
        is_safetensors = check_weight_file(source)
    try:
        if is_safetensors:
            with safe_open(source, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no dict)
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise ValueError(f"{why_unreadable(error, is_safetensors=is_safetensors)} ({source})") from None
    with _naming(source):
        return named_tensors(state, table), {}


def read_parts(source: Path) -> FaithDiffParts:
    """A FaithDiff file of any layout, taken apart; a LoRA that it holds, too, is merged into its UNet.

    Raises:
        ValueError: as from `read_tensors`; no FaithDiff file, or one shard of one.
    """
    return take_apart(source, *read_tensors(source))


def take_apart(source: Path, state: State, header: dict[str, str]) -> FaithDiffParts:
    """What `read_tensors` gave, as `read_parts` does it."""
    with _naming(source):
        return with_own_lora(whole_parts(source.name, state, header))


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
