"""Writing files so that a reader never sees half of one, and so that what a killed process has left does not stay."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.locks import in_use, is_abandoned

UNFINISHED = ".part-"
"""In the name of every temporary file."""

_swept: set[Path] = set()
"""Folders that this process has already looked through for the leftovers of others."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path in the same folder, then move it onto `path`; on any error nothing is left behind.

    `write` opens the file of that path and does not put another in its place. What killed processes have left in the folder goes
    when a process first writes there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_leftovers(path.parent)
    # The suffix is kept because Pillow and others choose the format by it.
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}{UNFINISHED}", suffix=path.suffix, dir=path.parent)
    temporary = Path(name)
    try:
        with in_use(handle):
            write(temporary)
            temporary.chmod(0o644)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files in `folder` whose writer lives no more."""
    for path in folder.glob(f".*{UNFINISHED}*"):
        if is_abandoned(path):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: (temporary.write_text(text, encoding="utf-8"), None)[1])


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
