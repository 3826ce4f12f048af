"""What a benchmark returns, and how ways of doing the same thing are timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a benchmark was asked for.

    Attributes:
        size: nano, vega or sdxl (`made_up.SIZES`).
        px: side of the image; of a tile for `tiles`; the largest side for `growth`. None: the benchmark's own choice.
        device: cpu or cuda.
        official: folder of the official repository, or None.
        rounds: how often each way is timed after a first round that only warms up. None: the benchmark's own choice.
    """

    size: str = "nano"
    px: int | None = None
    device: str = "cpu"
    official: str | None = None
    rounds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison, named "what: a / b". The ratios are a's seconds by b's of the same round: below 1, a is faster."""

    name: str
    ratio_median: float
    ratio_min: float
    ratio_max: float
    a_seconds: float
    """Median."""
    b_seconds: float
    """Median."""
    notes: str
    figures: Mapping[str, float] = field(default_factory=dict)
    """Further figures by name and unit, for the JSON."""


class Skipped(Exception):
    """A benchmark that cannot run here; the message says why, and what to do."""


Seconds = dict[str, list[float]]


def in_turn(ways: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float]) -> Seconds:
    """Seconds of each way in each round: a, b, ..., a, b, ...; the first round warms up and does not count."""
    seconds: Seconds = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            seconds[name].append(clock() - started)
    return {name: values[1:] for name, values in seconds.items()}


def compared(title: str, seconds: Seconds, a: str, b: str, *, notes: str, figures: Mapping[str, float] | None = None) -> Row:
    """The row "title: a / b" of two ways that were timed in turn."""
    ratios = [first / second for first, second in zip(seconds[a], seconds[b], strict=True)]
    return Row(
        name=f"{title}: {a} / {b}",
        ratio_median=round(statistics.median(ratios), 4),
        ratio_min=round(min(ratios), 4),
        ratio_max=round(max(ratios), 4),
        a_seconds=round(statistics.median(seconds[a]), 4),
        b_seconds=round(statistics.median(seconds[b]), 4),
        notes=notes,
        figures=figures or {},
    )
