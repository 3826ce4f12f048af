"""Writing files so that a reader never sees half of one, and so that what a killed process has left does not stay.

A temporary file is locked while it is written; the lock ends with the process that holds it, however it ends. filelock's
FileLock is not used, because it opens by path: a writer has its file open already, and a sweep must not make a file anew that
has just been moved to its place. So open files are locked here, and then the name is looked for: a file that has lost its name
guards nothing. filelock locks open files, too, from 3.30 on; `convert` and `restore` run in ComfyUI's Python, which may have an
older one.

On Windows temporary files are not locked, because an open file can be neither moved nor deleted there: what dead writers left
stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

UNFINISHED = ".faithdiff-part-"
"""In the name of every temporary file, before the machine that writes it (`HERE`)."""
HERE = f"{zlib.crc32(socket.gethostname().encode()):08x}-"
"""This machine, by its name."""
OTHERS_AGE_S = 3600.0
"""A file of another machine goes when nothing was written to it for so long. Some network disks keep locks to one machine, so
that the files of living writers elsewhere look free; an hour is more than a disk stands still, or clocks differ."""
STEM_LETTERS = 50
"""Of the final name in a temporary one: 255 bytes are the most in a name, and a letter has up to four."""
_swept: set[Path] = set()
"""Folders that this process has already looked through for the leftovers of others."""
OPEN_FILES_MOVE = os.name != "nt"
"""Whether this system moves and deletes files that are open."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the same folder, then move it onto `path`; on any error nothing is left behind.

    `write` opens the file of that path and does not put another in its place. What killed processes have left in the folder goes
    when a process first writes there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_leftovers(path.parent)
    handle, temporary = _new_temporary(path)
    try:
        with open_until_written(handle):
            write(temporary)
            temporary.chmod(0o644)
            with temporary.open("rb+") as written:  # Windows flushes only what is open for writing
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_temporary(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, open and claimed: its handle and its path."""
    prefix = f".{path.stem[:STEM_LETTERS]}{UNFINISHED}{HERE}"
    while True:
        # The suffix is kept because Pillow and others choose the format by it.
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        if claim(handle, Path(name)):
            return handle, Path(name)
        os.close(handle)


def remove_leftovers(folder: Path, *, only_user: bool = False) -> None:
    """Delete the temporary files in `folder` whose writer lives no more.

    Files of other machines stay until they are OTHERS_AGE_S old, but where the caller is the folder's `only_user`.
    """
    for path in folder.glob(f".*{UNFINISHED}*"):
        if only_user or f"{UNFINISHED}{HERE}" in path.name or _age_s(path) > OTHERS_AGE_S:
            remove_abandoned(path)


def _age_s(path: Path) -> float:
    """Since the last writing; 0 for a file that has gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def lock_open_file(handle: int) -> bool:
    """Lock an open file until it is closed, at once or not at all: False where another has it. True on Windows, unlocked.

    Raises:
        OSError: the disk has no locks.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def claim(handle: int, path: Path) -> bool:
    """Mark a new file, open at `path`, as in use until it is closed, where there are locks.

    False: `remove_abandoned` of another process has come between the making and the marking, and the file is gone.
    """
    try:
        return lock_open_file(handle) and path.exists()
    except OSError:  # nothing can be locked on this disk, so nothing is taken for abandoned
        return True


@contextlib.contextmanager
def open_until_written(handle: int) -> Iterator[None]:
    """Context in which a claimed file stays so; it is closed at the end, on Windows at once."""
    if not OPEN_FILES_MOVE:
        os.close(handle)
        yield
        return
    try:
        yield
    finally:
        os.close(handle)


def remove_abandoned(path: Path) -> None:
    """Delete a file if it is certain that no process on this machine has claimed it; on Windows it never is."""
    if not OPEN_FILES_MOVE:
        return
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        if lock_open_file(handle):
            path.unlink(missing_ok=True)  # under the lock: a writer that claims it now sees that it is gone
    except OSError:
        pass
    finally:
        os.close(handle)
