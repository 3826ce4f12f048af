"""Scores of the study's pictures, kept picture by picture, so that every table can be made from them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from training.evaluate.scores import score_rows
from training.reading.fidelity import score_text
from training.reading.scores import REFERENCE_ROW
from training.study.sets import StudySet

METRICS = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")
Rows = Mapping[str, Mapping[str, Path]]
Values = dict[str, dict[str, dict[str, float | None]]]
"""row -> metric -> key -> value."""


class PictureScores(TypedDict):
    """Scores of one set at one level, as in study.json."""

    values: Values
    missing: dict[str, str]
    """What could not be computed, and why."""


class SetScores(PictureScores, total=False):
    """The same with what only a set with words has."""

    text: dict[str, dict[str, dict[str, dict[str, float]]]]
    """engine -> row -> key -> count (match.Counts)."""
    engines: dict[str, dict[str, Any]]
    """engine -> its settings."""


Levels = dict[str, SetScores]
"""Level -> scores."""


class StudyResults(TypedDict):
    """All that study.json holds and the page is made of."""

    plan: dict[str, Any]
    """The fields of StudyPlan."""
    seeds: list[int]
    settings: list[str]
    software: dict[str, str]
    """Package -> version."""
    missing: dict[str, str]
    """Row -> why it could not be computed."""
    shipped: dict[str, Levels]
    """Set -> level -> scores of the shipped model and of what it is compared with."""
    rows: dict[str, Levels]
    """The same of the ablation's rows; a row's name has its seed behind it."""
    validation: dict[str, list[dict[str, float]]]
    """Row -> for each seed its validation metrics."""


def scores(
    pictures: StudySet, rows: Rows, engines: Sequence[str], *, metrics: Sequence[str] = METRICS, weights: Path | None = None,
    pyiqa: Path | None = None,
) -> SetScores:  # fmt: skip
    """Scores of all rows of a set at one level; what they read, too, where the set has words and there are engines."""
    found = score_rows(rows, pictures.hq, metrics, weights=weights, pyiqa=pyiqa)
    result: SetScores = {"values": {row: dict(found.values[row]) for row in rows}, "missing": dict(found.not_computed)}
    if pictures.annotations is not None and engines:
        text = score_text({**rows, REFERENCE_ROW: pictures.hq}, pictures.annotations, engines)
        result["text"], result["engines"] = text.values, text.engines
        result["missing"] |= text.not_computed
    return result


def unit_means(values: Mapping[str, float | None]) -> dict[str, float]:
    """Mean over the crops of each photo (keys `photo/number`): what intervals resample. Infinite values are left out."""
    parts: dict[str, list[float]] = {}
    for key, value in values.items():
        if value is not None:
            parts.setdefault(key.split("/")[0], []).append(value)
    return {unit: sum(found) / len(found) for unit, found in parts.items()}


def recalls(counts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Share of each picture's words that were read right; pictures without words are left out."""
    return {key: row["words"] / row["true"] for key, row in counts.items() if row["true"]}
