"""Locks on temporary files, which end with the process that holds them, however it ends.

The lock is filelock's: flock, on Windows LockFileEx. Its FileLock is not used, because it opens by path: a writer has its file
open already, and a sweep must not make a file anew that has just been moved to its place. So open files are locked here, and then
the name is looked for: a file that has lost its name guards nothing.

On Windows temporary files are not locked, because an open file can be neither moved nor deleted there: what dead writers left
stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

OPEN_FILES_MOVE = os.name != "nt"
"""Whether this system moves and deletes files that are open."""


def claim(handle: int, path: Path) -> bool:
    """Mark a new file, open at `path`, as in use until it is closed, where there are locks.

    False: `remove_abandoned` of another process has come between the making and the marking, and the file is gone.
    """
    try:
        return lock_descriptor(handle, blocking=False) and path.exists()
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
        if lock_descriptor(handle, blocking=False):
            path.unlink(missing_ok=True)  # under the lock: a writer that claims it now sees that it is gone
    except OSError:
        pass
    finally:
        os.close(handle)
