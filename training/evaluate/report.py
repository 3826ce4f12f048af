"""From scores to the report's numbers: means with intervals, paired differences, the worst pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.evaluate.scores import Scores
from training.reports.bootstrap import CONFIDENCE, RESAMPLES, Interval, mean_interval, paired_interval

SEED = 0
Values = Mapping[str, "float | None"]


def summary(values: Values) -> dict[str, Any]:
    """Mean, standard deviation, interval and number of the finite values; `not_finite` counts the others."""
    finite = [value for value in values.values() if value is not None]
    return {**_interval(mean_interval(finite, seed=SEED) if finite else None), "not_finite": len(values) - len(finite)}


def difference(values: Values, others: Values) -> dict[str, Any]:
    """The same of `values` less `others`, over the keys where both are finite."""
    pairs = [(value, others[key]) for key, value in values.items()]
    finite = [(a, b) for a, b in pairs if a is not None and b is not None]
    interval = paired_interval([a for a, _ in finite], [b for _, b in finite], seed=SEED) if finite else None
    return {**_interval(interval), "not_finite": len(pairs) - len(finite)}


def summaries(scores: Scores, against: str | None) -> dict[str, Any]:
    """The JSON report's part that comes from the scores. `against`: the row that the others are compared with."""
    rows = {row: {name: summary(values) for name, values in metrics.items()} for row, metrics in scores.values.items()}
    report: dict[str, Any] = {
        "count": len(scores.sizes_px),
        "sizes_px": _counted(scores.sizes_px),
        "metrics": {name: _described(scores, name) for name in scores.metrics},
        "not_computed": scores.not_computed,
        "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": SEED, "kind": "percentile, over pictures"},
        "rows": rows,
        "against": against,
        "differences": {},
    }
    if against is not None:
        base = scores.values[against]
        report["differences"] = {
            row: {name: difference(values, base[name]) for name, values in metrics.items() if name in base}
            for row, metrics in scores.values.items()
            if row != against
        }
    return report


def pictures(scores: Scores) -> dict[str, Any]:
    """Every number by key: size and scores by row."""
    return {
        key: {
            "size_px": list(size),
            "scores": {row: {name: values[key] for name, values in metrics.items()} for row, metrics in scores.values.items()},
        }
        for key, size in scores.sizes_px.items()
    }


def worst_keys(scores: Scores, row: str, name: str, count: int) -> list[str]:
    """The `count` keys of the row with the worst values of the metric, the worst first; equal ones in the order of their keys.
    A value that is not finite is an equal picture's, and never among them.
    """
    sign = -1.0 if scores.metrics[name].higher_is_better is False else 1.0
    finite = [(sign * value, key) for key, value in scores.values[row][name].items() if value is not None]
    return [key for _, key in sorted(finite)[:count]]


def _interval(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {"mean": None, "low": None, "high": None, "stdev": None, "count": 0}
    return asdict(interval)


def _counted(sizes_px: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for width, height in sizes_px.values():
        found[f"{width} x {height}"] = found.get(f"{width} x {height}", 0) + 1
    return dict(sorted(found.items()))


def _described(scores: Scores, name: str) -> dict[str, Any]:
    described = asdict(scores.metrics[name])
    for field in ("name", "is_default"):
        del described[field]
    return {**described, "computed_with": _computed_with(scores, name)}


def _computed_with(scores: Scores, name: str) -> str:
    by, note = scores.metrics[name].computed_by, scores.notes.get(name, "")
    if by != "torchmetrics":
        return note
    try:
        return f"torchmetrics {version('torchmetrics')}; {note}"
    except PackageNotFoundError:  # run from its sources
        return note
