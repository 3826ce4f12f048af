"""Text fidelity: do restored pictures still say what the originals say? Read by OCR engines, counted against annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.common.images import read_image
from training.reading.annotations import AnnotatedPicture, read_annotations
from training.reading.engines import EngineMissing, OcrEngine, open_engine
from training.reading.match import MatchRule, count_words
from training.reading.scores import TextScores

Rows = Mapping[str, Mapping[str, Path]]
"""Row name -> key -> picture."""

_NAMED = 5
"""How many keys a message names."""


def score_text(
    rows: Rows, annotations: Path, engines: Sequence[str], *, rule: MatchRule | None = None, seed: int = 0
) -> TextScores:
    """Let every engine read every row's pictures, and count. Shows a progress bar.

    Only annotated keys are read; every row must have the same of them, all pictures of a key in the annotations' size. An
    engine that is not installed goes to `not_computed`.

    Args:
        seed: of the bootstrap.

    Raises:
        ValueError: an unknown engine, broken annotations, no annotated picture, keys that rows do not share, or sizes that
            differ, before anything is read.
    """
    if not engines or len(set(engines)) < len(engines):
        raise ValueError(f"expected OCR engines, each once, got {list(engines)}, correct --ocr")
    pictures = read_annotations(annotations)
    keys = _common_keys(rows, pictures, annotations)
    opened, not_computed = _open(engines)
    if opened:
        _check_sizes(rows, keys, pictures)
    values: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    rule = rule or MatchRule()
    with tqdm(total=len(opened) * len(rows) * len(keys), desc="reading", unit="picture", dynamic_ncols=True) as bar:
        for engine in opened:
            values[engine.name] = {}
            for row, paths in rows.items():
                bar.set_postfix(engine=engine.name, row=row)
                counts: dict[str, dict[str, Any]] = {}
                for key in keys:
                    counts[key] = asdict(count_words(engine.read(read_image(paths[key])), pictures[key].words, rule))
                    bar.update()
                values[engine.name][row] = counts
    return TextScores(
        rows=tuple(rows),
        keys=keys,
        annotated_pictures=len(pictures),
        rule=rule,
        seed=seed,
        engines={engine.name: dict(engine.settings) for engine in opened},
        not_computed=not_computed,
        values=values,
    )


def _open(names: Sequence[str]) -> tuple[list[OcrEngine], dict[str, str]]:
    opened: list[OcrEngine] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            opened.append(open_engine(name))
        except EngineMissing as error:
            missing[name] = str(error)
    return opened, missing


def _common_keys(rows: Rows, pictures: Mapping[str, AnnotatedPicture], annotations: Path) -> tuple[str, ...]:
    if not rows:
        raise ValueError("expected at least one row of pictures, got none, pass --row NAME=DIR")
    annotated = {row: {key for key in paths if key in pictures} for row, paths in rows.items()}
    every = set().union(*annotated.values())
    if not every:
        raise ValueError(
            f"expected pictures whose keys are in {annotations} (such as {next(iter(pictures))!r}), got none, check the folders"
        )
    for row, keys in annotated.items():
        if keys != every:
            raise ValueError(
                f"expected the same annotated pictures in every row, got no {_listed(every - keys)} in row {row!r}, "
                "make them or leave them out of the other rows"
            )
    return tuple(key for key in sorted(pictures) if key in every)


def _check_sizes(rows: Rows, keys: Sequence[str], pictures: Mapping[str, AnnotatedPicture]) -> None:
    """Boxes are in px of the annotated pictures, so in a picture of another size they lie elsewhere."""
    first_row = next(iter(rows))
    for key in keys:
        expected = pictures[key].size_px or _size_px(rows[first_row][key])
        for row, paths in rows.items():
            size = _size_px(paths[key])
            if size != expected:
                raise ValueError(
                    f"expected {key!r} in row {row!r} to have {expected[0]} x {expected[1]} px as annotated (or as in row "
                    f"{first_row!r}), got {size[0]} x {size[1]}, resize it"
                )
        outside = [word.text for word in pictures[key].words if word.box_px[2] > expected[0] or word.box_px[3] > expected[1]]
        if outside:
            raise ValueError(
                f"expected the words of {key!r} inside its {expected[0]} x {expected[1]} px, got {_listed(set(outside))} "
                "outside, give the pictures that were annotated"
            )


def _size_px(path: Path) -> tuple[int, int]:
    _, height, width = read_image(path).shape
    return width, height


def _listed(names: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
