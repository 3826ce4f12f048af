"""What a report says, from scores: means with intervals, paired differences, the worst pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.evaluate.scores import Scores
from training.reading.scores import TextScores
from training.reports.bootstrap import CONFIDENCE, RESAMPLES, Interval, mean_interval, paired_interval

SEED = 0
Values = Mapping[str, "float | None"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The folders that were compared, as they were named."""

    restored: dict[str, str]
    """Row to folder."""
    lq: str | None
    reference: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The mean of one metric over a row's pictures, or of its differences to another row's; None where no value is finite.

    `low`, `high`: the ends of the mean's interval. `count`: finite values; `not_finite`: the others, which are in no mean.
    """

    mean: float | None
    low: float | None
    high: float | None
    stdev: float | None
    count: int
    not_finite: int


Cells = dict[str, dict[str, Cell]]
"""Row to metric to cell."""


@dataclass(frozen=True, kw_only=True)
class UsedMetric:
    """A metric as it was computed (metrics.catalogue.Metric); `computed_with`: the weight files and versions."""

    higher_is_better: bool | None
    values: str
    needs_reference: bool | None
    computed_by: str
    convention: str
    computed_with: str


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How the intervals were made."""

    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = SEED
    kind: str = "percentile, over pictures"


@dataclass(frozen=True, kw_only=True)
class WorstPicture:
    """`picture`: its strip, from the report's folder."""

    key: str
    value: float | None
    picture: str


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The worst pictures of a row by one metric (None: none was computed), and what their strips show from left to right."""

    row: str
    by: str | None
    columns: list[str]
    pictures: list[WorstPicture]


@dataclass(frozen=True, kw_only=True)
class PictureScores:
    """One picture's (width, height) and its scores by row and metric; None = not finite."""

    size_px: tuple[int, int]
    scores: dict[str, dict[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the JSON file holds, in its order."""

    inputs: Inputs
    border_px: int
    unmatched: dict[str, list[str]]
    """Folder to the keys that not all folders have."""
    unreadable: dict[str, str]
    """Picture to the reason why it is in no row."""
    count: int
    sizes_px: dict[str, int]
    """"WIDTH x HEIGHT" to the number of such pictures."""
    metrics: dict[str, UsedMetric]
    not_computed: dict[str, str]
    """Metric to reason."""
    bootstrap: Bootstrap
    rows: Cells
    against: str | None
    """The row that the others are compared with in `differences`."""
    differences: Cells
    text: TextScores | None
    worst: Worst
    pictures: dict[str, PictureScores]

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return asdict(replace(self, text=None)) | {"text": self.text.as_json() if self.text else None}


def report_of(
    scores: Scores,
    *,
    inputs: Inputs,
    border_px: int,
    unmatched: dict[str, list[str]],
    unreadable: dict[str, str],
    against: str | None,
    text: TextScores | None,
    worst: Worst,
) -> Report:
    """The report of these scores. `against`: the row that the others are compared with."""
    return Report(
        inputs=inputs,
        border_px=border_px,
        unmatched=unmatched,
        unreadable=unreadable,
        count=len(scores.sizes_px),
        sizes_px=_counted(scores.sizes_px),
        metrics={name: _used(scores, name) for name in scores.metrics},
        not_computed=scores.not_computed,
        bootstrap=Bootstrap(),
        rows={row: {name: summary(values) for name, values in metrics.items()} for row, metrics in scores.values.items()},
        against=against,
        differences={} if against is None else _differences(scores, against),
        text=text,
        worst=worst,
        pictures={key: _picture(scores, key) for key in scores.sizes_px},
    )


def summary(values: Values) -> Cell:
    """Mean, standard deviation, interval and number of the finite values."""
    finite = [value for value in values.values() if value is not None]
    return _cell(mean_interval(finite, seed=SEED) if finite else None, len(values) - len(finite))


def difference(values: Values, others: Values) -> Cell:
    """The same of `values` less `others`, over the keys where both are finite."""
    pairs = [(value, others[key]) for key, value in values.items()]
    finite = [(a, b) for a, b in pairs if a is not None and b is not None]
    interval = paired_interval([a for a, _ in finite], [b for _, b in finite], seed=SEED) if finite else None
    return _cell(interval, len(pairs) - len(finite))


def worst_keys(scores: Scores, row: str, name: str, count: int) -> list[str]:
    """The `count` keys of the row with the worst values of the metric, the worst first; equal ones in the order of their keys.
    A value that is not finite is an equal picture's, and never among them.
    """
    sign = -1.0 if scores.metrics[name].higher_is_better is False else 1.0
    finite = [(sign * value, key) for key, value in scores.values[row][name].items() if value is not None]
    return [key for _, key in sorted(finite)[:count]]


def _cell(interval: Interval | None, not_finite: int) -> Cell:
    if interval is None:
        return Cell(mean=None, low=None, high=None, stdev=None, count=0, not_finite=not_finite)
    return Cell(**asdict(interval), not_finite=not_finite)


def _differences(scores: Scores, against: str) -> Cells:
    base = scores.values[against]
    return {
        row: {name: difference(values, base[name]) for name, values in metrics.items() if name in base}
        for row, metrics in scores.values.items()
        if row != against
    }


def _picture(scores: Scores, key: str) -> PictureScores:
    return PictureScores(
        size_px=scores.sizes_px[key],
        scores={row: {name: values[key] for name, values in metrics.items()} for row, metrics in scores.values.items()},
    )


def _counted(sizes_px: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for width, height in sizes_px.values():
        found[f"{width} x {height}"] = found.get(f"{width} x {height}", 0) + 1
    return dict(sorted(found.items()))


def _used(scores: Scores, name: str) -> UsedMetric:
    described = asdict(scores.metrics[name])
    for field in ("name", "is_default"):
        del described[field]
    return UsedMetric(**described, computed_with=_computed_with(scores, name))


def _computed_with(scores: Scores, name: str) -> str:
    by, note = scores.metrics[name].computed_by, scores.notes.get(name, "")
    if by != "torchmetrics":
        return note
    try:
        return f"torchmetrics {version('torchmetrics')}; {note}"
    except PackageNotFoundError:  # run from its sources
        return note
