"""Says on stderr what is being done and for how long: one line that is rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TERMINAL_PERIOD_S = 0.5
LOG_PERIOD_S = 20.0


def minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Status:
    """A piece of work with a title; `detail` may be set from any thread while it goes on."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self.started = time.monotonic()
        self._stop = threading.Event()
        self._terminal = sys.stderr.isatty()

    def _tick(self) -> None:
        while not self._stop.wait(TERMINAL_PERIOD_S if self._terminal else LOG_PERIOD_S):
            self._write(self.detail, end="" if self._terminal else "\n")

    def _write(self, detail: str, end: str) -> None:
        line = f"  {self.title}  {minutes(time.monotonic() - self.started)}  {detail}".rstrip()
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            line = "\r\x1b[K" + line[:width]
        sys.stderr.write(line + end)
        sys.stderr.flush()


@contextmanager
def working(title: str) -> Iterator[Status]:
    """Show `title` with a running clock inside the block, and how it ended after it."""
    status = Status(title)
    if not status._terminal:
        say(f"  {title} ...")
    ticker = threading.Thread(target=status._tick, daemon=True)
    ticker.start()
    ending = "failed"
    try:
        yield status
        ending = "done"
    except KeyboardInterrupt:
        ending = "stopped"
        raise
    finally:
        status._stop.set()
        ticker.join()
        status._write(ending, end="\n")
