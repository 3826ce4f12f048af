"""What a hostile file must not do, watched while a reader has it: take long, take memory, write or delete elsewhere, start
something. The watch is Python's own audit events, a timer of CPU time, and the kernel's high-water marks of memory."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_CPU_S = 5.0
"""CPU time for one case. Real files of the sizes used here take milliseconds."""
SLACK_BYTES = 96 * 2**20
"""Memory that a reader may take whatever the file's size: torch's and Python's own arenas, a decoder's tables."""
MAX_TIMES_SIZE = 16
"""And so many times the file: half precision becomes fp32 (2), a copy to convert (2), JSON as Python objects (10 and more)."""
MAX_LETTERS = 1500
"""Of a message: a path or two and an excerpt, never a file's content."""

STARTS = frozenset(
    {
        *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen"),
        *("pty.spawn", "socket.connect", "socket.bind", "ctypes.dlopen", "pickle.find_class"),
    }
)
CHANGES = frozenset(
    {
        *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown"),
        *("shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.unpack_archive"),
    }
)
WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hang(BaseException):
    """A case took too long. No `except Exception` of a reader holds it."""


class Misdeed(AssertionError):
    """A case did what no file may do."""


class _Watch:
    """One for the process: an audit hook can never be taken off."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in STARTS:
            self.seen.append(f"{event}{arguments!r:.200}")
        elif event in CHANGES:
            self._check(event, [each for each in arguments[:2] if isinstance(each, str | bytes | os.PathLike)])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING_FLAGS:
            self._check(event, [each for each in arguments[:1] if isinstance(each, str | bytes | os.PathLike)])

    def _check(self, event: str, paths: list[Any]) -> None:
        for path in paths:
            full = os.path.realpath(os.fsdecode(path))
            if not (full + os.sep).startswith(str(self.folder)) and full != os.devnull and "__pycache__" not in full:
                self.seen.append(f"{event}({full})")


_WATCH = _Watch()


@contextmanager
def guarded(folder: Path, size_bytes: int) -> Iterator[None]:
    """Inside, a reader has a file of `size_bytes`; it may write in `folder` only.

    Raises Misdeed, in place of the reader's own error too, or Hang after MAX_CPU_S of CPU time."""
    before = _memory_bytes(reset=True)
    _WATCH.seen, _WATCH.folder = [], os.path.realpath(folder) + os.sep
    try:
        with _timer():
            yield
    except Exception:
        _judge(before, size_bytes)  # a file that is refused may do no more than one that is taken
        raise
    else:
        _judge(before, size_bytes)
    finally:
        _WATCH.folder = None


def _judge(before: tuple[int, ...], size_bytes: int) -> None:
    """Raises Misdeed for what the watch has seen since, and for memory beyond the marks `before`."""
    if _WATCH.seen:
        raise Misdeed("; ".join(_WATCH.seen[:3]))
    limit = SLACK_BYTES + MAX_TIMES_SIZE * size_bytes
    for what, was_bytes, is_bytes in zip(("resident", "virtual"), before, _memory_bytes(), strict=False):
        # Twice the room for the address space: threads and arenas reserve what they never touch.
        if is_bytes - was_bytes > limit * (1 if what == "resident" else 2):
            raise Misdeed(f"{what} memory grew by {(is_bytes - was_bytes) / 2**20:.0f} MiB for a file of {size_bytes} bytes")


@contextmanager
def _timer() -> Iterator[None]:
    if not hasattr(signal, "setitimer"):  # Windows: pytest's own time limit is left
        yield
        return

    def ring(*_: object) -> None:
        raise Hang(f"more than {MAX_CPU_S:g} s of CPU time for one file")

    former = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def _memory_bytes(*, reset: bool = False) -> tuple[int, ...]:
    """High-water marks (resident, virtual) of this process; empty where the kernel does not tell them."""
    try:
        if reset:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as marks:
                marks.write("5")  # the resident mark starts anew (Linux, Documentation/filesystems/proc.rst)
        with open("/proc/self/status", encoding="ascii") as status:
            told = dict(line.split(":", 1) for line in status)
        return tuple(1024 * int(told[name].split()[0]) for name in ("VmHWM", "VmPeak"))
    except (OSError, KeyError, ValueError):
        return ()


def check_message(message: str) -> None:
    """Raises Misdeed unless a user could be shown this: one line, not a file's content, what was expected and what came."""
    if "expected " not in message or not any(word in message for word in (", got ", ", found ")):
        raise Misdeed(f"not a message of ours: {message[:300]!r}")
    if len(message) > MAX_LETTERS or "\n" in message or "\0" in message:
        raise Misdeed(f"a message of {len(message)} letters, or more than one line: {message[:300]!r}")
