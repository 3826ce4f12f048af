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


@contextlib.contextmanager
def in_use(handle: int) -> Iterator[None]:
    """Context in which this open file counts as in use, where there are locks; the file is closed at its end."""
    if fcntl is None:
        os.close(handle)  # an open file could not be moved or deleted there
        yield
        return
    try:
        with contextlib.suppress(OSError):
            take(handle)
        yield
    finally:
        os.close(handle)


def is_abandoned(path: Path) -> bool:
    """Whether it is certain that no process writes this file under `in_use`."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return take(handle)
    except OSError:
        return False
    finally:
        os.close(handle)
