"""Every metric of every row on every picture: the numbers behind a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from faithdiff_core.files.checks import first_line
from training.evaluate.rows import Paths, check_sizes, read_cropped
from training.metrics.catalogue import OURS, PYIQA, Metric, metrics_named
from training.metrics.networks import NotComputedError, PairScore, network_metric
from training.metrics.own import OWN
from training.metrics.pyiqa_runner import PyiqaResult, program_of, pyiqa_metrics
from training.reading.scores import REFERENCE_ROW

RowValues = dict[str, dict[str, "float | None"]]
"""Metric to key to value; None = not finite (the PSNR of equal pictures)."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """`values[row][metric][key]`; None = not finite. A metric that could not be computed is in no row, and its reason is in
    `not_computed`. `metrics`: what was computed, in the order asked for. `notes`: the weight files used, by metric.
    """

    values: dict[str, RowValues]
    not_computed: dict[str, str]
    metrics: dict[str, Metric]
    notes: dict[str, str]
    sizes_px: dict[str, tuple[int, int]]
    """(width, height) by key, the border included."""


@dataclass(kw_only=True)
class _Pairs:
    """What compares a picture with its reference in this process; a metric that fails moves to `failed`."""

    scorers: dict[str, PairScore]
    failed: dict[str, str] = field(default_factory=dict)


def score_rows(
    rows: Mapping[str, Paths],
    reference: Paths,
    metrics: Sequence[str],
    *,
    border_px: int = 0,
    weights: Path | None = None,
    pyiqa: Path | None = None,
    progress: bool = True,
) -> Scores:
    """Score rows of pictures (key to path, the keys and sizes of `reference`) in the named metrics (metrics/catalogue.py).

    A row called `reference` gets the metrics that need no reference only. One picture of every row is in memory at a time.

    Args:
        border_px: cut off at every side first.
        weights: folder of weight files.
        pyiqa: Python of an environment with pyiqa.
        progress: show a bar on the terminal.

    Raises:
        ValueError: unknown metrics, rows with other keys or sizes, unreadable pictures.
    """
    asked = metrics_named(metrics)
    _check(rows, reference, weights, pyiqa)
    sizes_px = check_sizes(rows, reference, border_px)
    pairs = _Pairs(scorers={name: OWN[name] for name, metric in asked.items() if metric.computed_by == OURS})
    notes: dict[str, str] = {}
    for name in [name for name, metric in asked.items() if metric.computed_by not in (OURS, PYIQA)]:
        try:
            pairs.scorers[name], notes[name] = network_metric(name, weights)
        except NotComputedError as reason:
            pairs.failed[name] = str(reason)
    found = _paired(rows, reference, pairs, border_px, progress)
    foreign = {name: metric for name, metric in asked.items() if metric.computed_by == PYIQA}
    results: dict[str, PyiqaResult] = {}
    if foreign:
        answers = pyiqa_metrics(
            [metric.pyiqa_name for metric in foreign.values()], rows, reference, reference_row=REFERENCE_ROW,
            border_px=border_px, weights=weights, python=pyiqa, progress=progress,
        )  # fmt: skip
        results = {name: answers[metric.pyiqa_name] for name, metric in foreign.items()}
    for name, result in results.items():
        if result.reason is not None:
            pairs.failed[name] = result.reason
            continue
        notes[name] = result.note
        for row, values in result.values.items():
            found[row][name] = values
    computed = {name: _known(metric, results.get(name)) for name, metric in asked.items() if name not in pairs.failed}
    return Scores(
        values={row: {name: found[row][name] for name in computed if name in found[row]} for row in rows},
        not_computed={name: pairs.failed[name] for name in asked if name in pairs.failed},
        metrics=computed, notes=notes, sizes_px=sizes_px,
    )  # fmt: skip


def _check(rows: Mapping[str, Paths], reference: Paths, weights: Path | None, pyiqa: Path | None) -> None:
    for name, paths in rows.items():
        if paths.keys() != reference.keys():
            differ = sorted(paths.keys() ^ reference.keys())[:5]
            raise ValueError(
                f"expected the keys of the references in row {name!r}, got others ({', '.join(differ)}), join them first"
            )
    if not reference:
        raise ValueError("expected at least one picture, got none, check the folders")
    if weights is not None and not weights.is_dir():
        raise ValueError(f"expected --weights to be a folder of weight files, got {weights}, check the path")
    if pyiqa is not None:
        program_of(pyiqa)


def _paired(rows: Mapping[str, Paths], reference: Paths, pairs: _Pairs, border_px: int, progress: bool) -> dict[str, RowValues]:
    compared = [row for row in rows if row != REFERENCE_ROW]
    found: dict[str, RowValues] = {row: {} for row in rows}
    if not pairs.scorers:
        return found
    for row in compared:
        found[row] = {name: {} for name in pairs.scorers}
    with tqdm(total=len(reference) * len(compared), desc="evaluate", disable=not progress, mininterval=2.0, delay=2.0) as bar:
        for key, path in reference.items():
            truth = read_cropped(path, border_px)
            for row in compared:
                picture = read_cropped(rows[row][key], border_px)
                for name in [name for name in pairs.scorers if name not in pairs.failed]:
                    try:
                        value = pairs.scorers[name](picture, truth)
                    except (RuntimeError, ValueError) as error:  # a picture that the metric is not made for, as a rule too small
                        pairs.failed[name] = f"{key!r} of {row}: {first_line(error)}"
                        continue
                    found[row][name][key] = value if math.isfinite(value) else None
                bar.update()
    return found


def _known(metric: Metric, result: PyiqaResult | None) -> Metric:
    """The metric with what only pyiqa could say of it."""
    if result is None or metric.needs_reference is not None:
        return metric
    return replace(
        metric, higher_is_better=result.higher_is_better, needs_reference=result.needs_reference, values=result.values_range
    )
