"""How a run can end early: its errors, and the signals. Importing this costs nothing, so every command can name them."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

ECHO_S = 2.0
"""A launcher passes on to its processes what the terminal has already sent them: so long, a signal counts as the same one."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a finite number."""


class SaveError(OSError):
    """The end of a run could not be saved."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer."""

    def __init__(self, process: int, reason: str) -> None:
        super().__init__(
            f"process {process} has lost another process of this run ({reason}); the last checkpoint is kept: see what the other "
            "one printed last, then launch again with --resume"
        )


class Interrupted(KeyboardInterrupt):
    """Training stopped on a signal; everything up to the last step is saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        self.exit_code = 128 + signal_number
        """As shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        super().__init__(f"stopped by {signal.Signals(signal_number).name} and saved after {step} steps, go on with --resume")


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
