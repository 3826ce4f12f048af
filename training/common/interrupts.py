"""Ctrl-C and SIGTERM: the first asks the loop to stop after its step, the next stops at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

ECHO_S = 2.0
"""A launcher passes on to its processes what the terminal has already sent them: so long, a signal counts as the same one."""


class Interrupts:
    """Context in which both signals are taken notice of. Outside the main thread it does nothing."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received = 0
        """Number of the signal that came, 0 = none."""
        self._time_s = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._take) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._time_s = number, now
        elif now - self._time_s > ECHO_S:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)
