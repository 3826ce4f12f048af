"""One run folder, one run at a time: a second one would delete the first one's half-written files and mix the logs.

filelock's lock of an open file, not its FileLock: where a disk cannot lock, that one leaves a marker behind, which outlives a
killed process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from training.loop.engine import Engine

LOCK = ".lock"
HOLDER_AT = 1
"""Where the holder's name begins: on Windows the first byte is locked, and others cannot read it."""
MAX_HOLDER_BYTES = 200


@contextlib.contextmanager
def only_run_in(run_dir: Path, engine: Engine) -> Iterator[None]:
    """Context in which no other run may use the folder, which is made if need be. All processes call it; the main one locks.

    The lock ends with its process, killed or not.

    Raises:
        ValueError: in every process, if the folder is in use or cannot be written to.
    """
    handle, refusal = _open(run_dir) if engine.is_main else (None, "")
    try:
        if engine.mean([float(bool(refusal))])[0]:
            raise ValueError(refusal or "expected a run folder to begin in, got none (see the main process's message)")
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open(run_dir: Path) -> tuple[int | None, str]:
    """The open lock file, and why the run must not begin ("" = it may)."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:  # told, not raised: the other processes wait for a word
        return None, f"expected a run folder that can be written to, got {run_dir} ({error}); check the path and the disk"
    try:
        taken = lock_descriptor(handle, blocking=False)
    except OSError:  # a disk without locks: as careful as the user is
        taken = True
    if not taken:
        os.lseek(handle, HOLDER_AT, os.SEEK_SET)
        holder = os.read(handle, MAX_HOLDER_BYTES).decode(errors="replace").strip() or "another process"
        return handle, f"expected a free run folder, got {run_dir}, in use by {holder}; wait for its end or choose another --out"
    with contextlib.suppress(OSError):  # the name is for a message only, and a full disk is the first write's to tell
        os.truncate(handle, 0)
        os.write(handle, f"\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())
    return handle, ""
