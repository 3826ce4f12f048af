"""Files that torch.save writes: whole or not at all, and checked before they are believed."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from faithdiff_core.files.pickle_check import check_pickle
from training.common.files import write_atomically


def write_archive(path: Path, value: Any) -> None:
    """torch.save, atomically.

    Raises:
        OSError: on a full disk for example.
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
        ValueError: the file is damaged.
        OSError: the system could not read it.
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
