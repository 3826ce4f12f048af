"""`evaluate`: restored pictures against their references, beside the plainly enlarged LQ pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from training.files import write_json
from training.images import picture_paths, read_image, to_unit
from training.metrics import METRICS


def evaluate(restored: Path, reference: Path, lq: Path | None, metrics: list[str], out: Path) -> dict[str, Any]:
    """Compare folders by key and write the report. The LQ baseline is bicubic enlargement to the reference's size.

    Raises ValueError for an unknown metric, a key without its reference, or sizes that differ."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"expected metrics among {', '.join(METRICS)}, got {', '.join(unknown)}, correct --metrics")
    restored_by_key, reference_by_key = _by_key(restored), _by_key(reference)
    lq_by_key = _by_key(lq) if lq else {}
    if not restored_by_key:
        raise ValueError(f"expected pictures in {restored}, got none, check the folder")
    rows = []
    for key, path in restored_by_key.items():
        if key not in reference_by_key or (lq and key not in lq_by_key):
            raise ValueError(f"expected a reference{' and an LQ picture' if lq else ''} for {key!r}, got none, check the folders")
        truth = to_unit(read_image(reference_by_key[key]))
        row: dict[str, Any] = {"key": key, "restored": _scores(to_unit(read_image(path)), truth, metrics, key)}
        if lq:
            small = to_unit(read_image(lq_by_key[key]))
            enlarged = F.interpolate(small[None], size=truth.shape[1:], mode="bicubic")[0].clamp(0, 1)
            row["lq"] = _scores(enlarged, truth, metrics, key)
        rows.append(row)
    kinds = ["restored", "lq"] if lq else ["restored"]
    mean = {kind: {name: _mean([row[kind][name] for row in rows]) for name in metrics} for kind in kinds}
    report = {"count": len(rows), "mean": mean, "pictures": rows}
    write_json(out, report)
    return report


def _by_key(folder: Path) -> dict[str, Path]:
    return dict(picture_paths([folder]))


def _scores(image: torch.Tensor, truth: torch.Tensor, metrics: list[str], key: str) -> dict[str, float | None]:
    if image.shape != truth.shape:
        raise ValueError(
            f"expected {key!r} to have its reference's size, got {tuple(image.shape[1:])} and {tuple(truth.shape[1:])}"
        )
    scores = {name: METRICS[name](image, truth) for name in metrics}
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}  # JSON has no infinity


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
