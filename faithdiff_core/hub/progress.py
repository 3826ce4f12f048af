"""How far something has come, how quickly, and how long it will take: in numbers and in a line of text."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

Told = Callable[[str, int, int], None]
"""Called often with what is being done, bytes done and bytes in all. It may raise, which ends the work: what is done stays."""

WINDOW_S = 15.0
"""The speed is that of so many last seconds: long enough to be quiet, short enough to notice a line that slows down."""


class CancelledError(Exception):
    """Somebody has cancelled a download."""


@dataclass
class Progress:
    """What `Told` was told last, and the speed. `clock`: seconds, never backwards."""

    clock: Callable[[], float] = time.monotonic
    phase: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def tell(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        """As `Told`. What was there before a resumed download is no speed, so another phase starts anew."""
        now = self.clock()
        if phase != self.phase or total_bytes != self.total_bytes or done_bytes < self.done_bytes:
            self._samples.clear()
        self.phase, self.done_bytes, self.total_bytes = phase, done_bytes, total_bytes
        self._samples.append((now, done_bytes))
        while now - self._samples[0][0] > WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    @property
    def bytes_per_s(self) -> float:
        """0 while it is not known."""
        if not self._samples:
            return 0.0
        (since_s, since_bytes), (last_s, last_bytes) = self._samples[0], self._samples[-1]
        return (last_bytes - since_bytes) / (last_s - since_s) if last_s > since_s else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end of this phase; None while it is not known."""
        speed = self.bytes_per_s
        return (self.total_bytes - self.done_bytes) / speed if speed > 0 else None

    def line(self) -> str:
        """Such as "FaithDiff.bin: downloading 1.2 of 10.4 GB, 12.0 MB/s, 13 min left"."""
        text = f"{self.phase} {in_units(self.done_bytes)} of {in_units(self.total_bytes)}"
        if self.bytes_per_s > 0 and self.eta_s is not None:
            text += f", {in_units(self.bytes_per_s)}/s, {in_time(self.eta_s)} left"
        return text


def in_units(size_bytes: float) -> str:
    """Decimal units, as the hub and disks' makers use them."""
    for unit, one in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= one:
            return f"{size_bytes / one:.1f} {unit}"
    return f"{size_bytes / 1e3:.0f} kB"


def in_time(span_s: float) -> str:
    """Seconds below two minutes, minutes below two hours."""
    if span_s < 120:
        return f"{span_s:.0f} s"
    return f"{span_s / 60:.0f} min" if span_s < 7200 else f"{span_s / 3600:.1f} h"
