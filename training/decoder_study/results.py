"""What the study of a decoder found out: scores of every set and level, kept once they are computed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from training.common.files import write_json
from training.metrics.efficientnet_lite import FILE, INSTALL, find_weights
from training.metrics.pyiqa_runner import MISSING, program_of
from training.reading.engines import EngineMissing, open_engine
from training.study.methods import pictures_digest
from training.study.scores import Levels, Rows, SetScores, scores
from training.study.sets import StudySet

PHOTOS, WORDS = "photos", "words"
METRICS = ("psnr_rgb", "ssim_rgb")
"""Those that need nothing else."""
NEAR, NATURAL = "efficientnet_lite0", "niqe"


class SetResults(TypedDict):
    """One set of pictures."""

    kind: str
    """PHOTOS or WORDS."""
    scale: int
    levels: Levels
    sweep: Levels
    """PSNR of every fidelity; photos only."""


class DecoderResults(TypedDict):
    """All that fidelity.json holds and the page is made of."""

    plan: dict[str, Any]
    """The fields of DecoderPlan."""
    decoder: dict[str, Any]
    """What its file says of its training."""
    software: dict[str, str]
    missing: dict[str, str]
    """Row, metric or engine -> why it could not be computed."""
    sets: dict[str, SetResults]
    sheets: Mapping[str, Sequence[Sequence[str]]]
    """Sheet -> set, level and key of its lines."""


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What can be measured with here. `missing`: what cannot, and why."""

    metrics: tuple[str, ...]
    engines: tuple[str, ...]
    missing: Mapping[str, str]
    weights: Path | None
    pyiqa: Path | None


def instruments(engines: Sequence[str], weights: Path | None, pyiqa: Path | None) -> Instruments:
    """Look for engines, weights and packages. `pyiqa`: the Python of an environment with it; None = this one, where it has it.

    Raises:
        ValueError: an unknown engine; a `pyiqa` that is no program.
    """
    metrics: list[str] = [*METRICS]
    missing: dict[str, str] = {}
    if find_weights(weights) is not None:
        metrics.append(NEAR)
    else:
        missing[NEAR] = f"needs {FILE}, do {INSTALL}"
    if pyiqa is None and importlib.util.find_spec("pyiqa") is not None:
        pyiqa = Path(sys.executable)
    if pyiqa is not None:
        program_of(pyiqa)
        metrics.append(NATURAL)
    else:
        missing[NATURAL] = MISSING
    opened: list[str] = []
    for name in engines:
        try:
            open_engine(name)
            opened.append(name)
        except EngineMissing as error:
            missing[name] = str(error)
    return Instruments(metrics=tuple(metrics), engines=tuple(opened), missing=missing, weights=weights, pyiqa=pyiqa)


def kept_scores(file: Path, pictures: StudySet, rows: Rows, tools: Instruments, *, metrics: Sequence[str]) -> SetScores:
    """Scores of the rows of a set at one level; those in `file` where they are of the same pictures and instruments. What is not
    complete is not kept.
    """
    identity = {
        "metrics": list(metrics), "engines": list(tools.engines), "truth": pictures_digest(pictures.hq),
        "rows": {row: pictures_digest(paths) for row, paths in rows.items()},
    }  # fmt: skip

    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if kept.get("made_by") == identity:
        return kept["scores"]
    found = scores(pictures, rows, tools.engines, metrics=metrics, weights=tools.weights, pyiqa=tools.pyiqa)
    if not found["missing"]:
        write_json(file, {"made_by": identity, "scores": found})
    return found
