"""Locks on files that end with the process that holds them, however it ends: BSD locks. On Windows nothing is locked."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def take(handle: int) -> bool:
    """Whether the lock of this open file, free until now, is held from now on (until it is closed).

    Raises OSError on systems and disks without locks."""
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no locks that end with their process")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def claim(handle: int, path: Path) -> bool:
    """Mark a new file, open at `path`, as in use until it is closed, where there are locks.

    False: `remove_abandoned` of another process has come between the making and the marking, and the file is gone."""
    try:
        return take(handle) and path.exists()
    except OSError:  # nothing can be locked here, so nothing is taken for abandoned
        return True


@contextlib.contextmanager
def open_until_written(handle: int) -> Iterator[None]:
    """Context in which a claimed file stays so; it is closed at the end, on Windows at once."""
    if fcntl is None:
        os.close(handle)  # an open file could not be moved or deleted there
        yield
        return
    try:
        yield
    finally:
        os.close(handle)


def remove_abandoned(path: Path) -> None:
    """Delete a file if it is certain that no process on this machine has claimed it."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        if take(handle):
            path.unlink(missing_ok=True)  # under the lock: a writer that claims it now sees that it is gone
    except OSError:
        pass
    finally:
        os.close(handle)
