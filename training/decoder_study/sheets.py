"""Sheets of pictures before and after the decoder, at their own size: lines picked by hand, and lines that a seed picked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from training.common.seeds import generator_for
from training.decoder_study.results import PHOTOS, WORDS
from training.decoder_study.rows import FULL, PLAIN
from training.study.charts import write_strips
from training.study.methods import LQ
from training.study.sets import StudySet

Line = tuple[str, str, str]
"""Set, level and key."""
Made = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Path]]]]
"""Set -> level -> row -> key -> picture."""
RANDOM_LINES = 4
PICKED: dict[str, tuple[Line, ...]] = {
    PHOTOS: (
        ("photos-x2", "II", "coffee/0"),
        ("photos-x2", "heavy", "astronaut/0"),
        ("photos-x4", "I", "motorcycle_left/0"),
        ("photos-x4", "II", "chelsea/0"),
    ),
    WORDS: (
        ("words-x4", "I", "words-0-44px-0000"),
        ("words-x4", "II", "words-0-44px-0003"),
        ("words-x4", "II", "words-0-52px-0001"),
        ("words-x4", "III", "words-0-60px-0002"),
    ),
}
"""A face, fur, machine parts, a cup with print; each size of letters. Chosen before any had been through a decoder."""
COLUMNS = {LQ: "LQ, enlarged", PLAIN: "fidelity 0", FULL: "fidelity 1"}
TRUTH = "truth"


def chosen_lines(sets: Iterable[tuple[str, StudySet]], seed: int) -> dict[str, list[Line]]:
    """The lines of every sheet by its name; `sets` are of a kind each. A sheet without lines is left out."""
    there: dict[str, list[Line]] = {}
    for kind, pictures in sets:
        there.setdefault(kind, []).extend((pictures.name, level, key) for level in pictures.lq for key in sorted(pictures.hq))
    sheets: dict[str, list[Line]] = {}
    for kind, lines in there.items():
        sheets[f"{kind}-picked"] = [line for line in PICKED[kind] if line in lines]
        drawn = torch.randperm(len(lines), generator=generator_for(seed, "fidelity-sheet", kind))[:RANDOM_LINES]
        sheets[f"{kind}-random"] = [lines[number] for number in sorted(drawn.tolist())]
    return {name: lines for name, lines in sheets.items() if lines}


def sheet_file(name: str) -> str:
    """Where a sheet lies, from the page."""
    return f"pictures/fidelity-{name}.jpg"


def write_sheets(folder: Path, sheets: Mapping[str, Sequence[Line]], made: Made, sets: Mapping[str, StudySet]) -> None:
    """Write every sheet below `folder`, where the page lies."""
    for name, lines in sheets.items():
        strips = [[*(made[s][level][row][key] for row in COLUMNS), sets[s].hq[key]] for s, level, key in lines]
        write_strips(folder / sheet_file(name), [*COLUMNS.values(), TRUTH], strips, side_px=sets[lines[0][0]].side_px)
