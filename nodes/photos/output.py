"""Names for results, and writing them: never over a file that is there, and never half."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_paths

NAME = "%name%"
"""In a name: the source's. The host's own (%width%, %year% ...) work, too."""
NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""What some file system does not take."""
VARIABLES = re.compile("%(width|height|year|month|day|hour|minute|second)%")
"""What the host fills in; in a source's own name it is a part of the name (H folder_paths.py, get_save_image_path)."""
WINDOWS_DEVICES = frozenset(("CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))))
"""Names that Windows takes for devices, with any suffix."""
MAX_NAME_BYTES = 200
"""File systems take 255; a number and a suffix must have room."""


def place_for(pattern: str, name: str, width_px: int, height_px: int) -> tuple[Path, str]:
    """Folder, and file name without suffix.

    Args:
        pattern: the node's input; "/" makes folders.
        name: the source's, for %name%.
        width_px: for %width%.
        height_px: for %height%.

    Raises:
        ValueError: a place outside of the output folder.
    """
    clean = VARIABLES.sub(r"_\1_", NOT_IN_NAMES.sub("_", name)).strip(". ") or "photo"
    root = folder_paths.get_output_directory()
    filled = "/".join(NOT_IN_NAMES.sub("_", part) for part in pattern.replace("\\", "/").split("/"))
    filled = filled.replace(NAME, clean).strip() or clean
    try:
        folder, stem, _, _, _ = folder_paths.get_save_image_path(filled, root, width_px, height_px)
    except OSError as error:
        raise ValueError(
            f"expected a folder that can be made for {filled!r:.200}, got {error.strerror}; change the name"
        ) from error
    except Exception as error:  # the host's word for a place outside
        raise ValueError(
            f"expected a name inside ComfyUI's output folder, got {filled!r:.200}; leave out .. and absolute paths"
        ) from error
    stem = stem.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    if stem.partition(".")[0].upper() in WINDOWS_DEVICES:
        stem = f"_{stem}"
    return Path(folder), stem


def write_new(folder: Path, stem: str, suffix: str, data: bytes) -> Path:
    """Write a file under the first free name: `stem`, `stem_2`, `stem_3` and so on.

    The name is taken first, by a file of no bytes that must be new; the whole file then takes its place.

    Raises:
        ValueError: the folder cannot be written, or the disk is full; nothing is left of the file then.
    """
    return _write(folder, f"{stem}{suffix}", data, lambda: (_taken(folder, stem, suffix), True))


def write_result(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file under this name and no other. `replace`: in place of what is there, which is whole until the new one is.

    Raises:
        ValueError: something else is there, the folder cannot be written, or the disk is full.
    """
    _write(path.parent, path.name, data, lambda: (path, False) if replace else (_new(path), True))


def append_line(path: Path, text: str) -> None:
    """Add a line to a file, behind whatever half a line a killed process has left.

    Raises:
        ValueError: the folder cannot be made or written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as lines:
            line = text + "\n"
            if lines.tell():
                lines.seek(-1, os.SEEK_END)
                line = line if lines.read() == b"\n" else "\n" + line
            lines.write(line.encode("utf-8"))
            lines.flush()
            os.fsync(lines.fileno())
    except OSError as error:
        raise ValueError(
            f"expected to write into {path.parent}, got {error.strerror}; make room or check the folder's rights"
        ) from error


def _write(folder: Path, name: str, data: bytes, place: Callable[[], tuple[Path, bool]]) -> Path:
    """Write a file whole beside its place, then move it there. `place`: its path, and whether that was taken for it just now."""
    taken: Path | None = None
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside its place: a rename is whole on one disk only.
        temporary = folder / f".faithdiff-{threading.get_ident()}-{time.time_ns()}.part"
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path, is_new = place()
        taken = path if is_new else None
        os.replace(temporary, path)
        return path
    except BaseException as error:
        for left in (temporary, taken):
            if left is not None:
                with contextlib.suppress(OSError):  # a folder that takes nothing: the first error says so
                    left.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ValueError(
                f"expected to write {name} into {folder}, got {error.strerror}; make room or check the folder's rights"
            ) from error
        raise


def _new(path: Path) -> Path:
    try:
        with path.open("xb"):
            return path
    except FileExistsError:
        raise ValueError(
            f"expected room for {path.name} in {path.parent}, got a file that was not made here, or was changed since; "
            "move it away"
        ) from None


def _taken(folder: Path, stem: str, suffix: str) -> Path:
    for name in _names(stem):
        path = folder / f"{name}{suffix}"
        try:
            with path.open("xb"):
                return path
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")


def _names(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}_{number}"
        number += 1
