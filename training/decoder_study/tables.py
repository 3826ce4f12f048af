"""Tables and sentences of the page, from scores alone: the same scores give the same text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from training.decoder_study.results import NATURAL, NEAR, SetResults
from training.decoder_study.rows import ALONE, FIDELITIES, FULL, LANCZOS, LEARNED, PLAIN, SAYS, restored
from training.metrics.catalogue import METRICS as CATALOGUE
from training.reading.scores import REFERENCE_ROW
from training.reports.bootstrap import Interval, mean_interval
from training.reports.tables import markdown_table
from training.study.methods import FLOOR
from training.study.scores import SetScores
from training.study.tables import Table, difference_text, interval_text, metric_table, paired, recall_table

AGAINST = {
    LANCZOS: "Lanczos",
    FLOOR: "the floor",
    LEARNED: "Real-ESRGAN x4plus",
    PLAIN: "fidelity 0",
    ALONE: "the decoder without the model",
}
"""What fidelity 1 is compared with."""
NAMES = {"psnr_rgb": "PSNR, dB", "ssim_rgb": "SSIM", NEAR: "EfficientNet-Lite0 distance", NATURAL: "NIQE"}
DIGITS = {"psnr_rgb": 2, "ssim_rgb": 4, NEAR: 4, NATURAL: 2}
RECALL_DIGITS = 3
BETTER, WORSE, OPEN = "better", "worse", "not told apart"
Sets = Mapping[str, SetResults]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of the page."""

    name: str
    digits: int
    higher_is_better: bool
    tables: dict[tuple[int, str], Table]
    """(scale, level) -> row -> photo or picture -> value."""


def measures(sets: Iterable[SetResults]) -> list[Measure]:
    """Every figure of these sets, which are of one kind: metrics, then what each engine reads."""
    levels = {(each["scale"], level): found for each in sets for level, found in each["levels"].items()}
    made: list[Measure] = []
    for metric, name in NAMES.items():
        tables = {place: metric_table(found, metric) for place, found in levels.items() if _has(found, metric)}
        better = CATALOGUE[metric].higher_is_better is True
        made.append(Measure(name=name, digits=DIGITS[metric], higher_is_better=better, tables=tables))
    for engine in sorted({engine for found in levels.values() for engine in found.get("text", {})}):
        tables = {place: recall_table(found, engine) for place, found in levels.items()}
        made.append(Measure(name=f"recall of {engine}", digits=RECALL_DIGITS, higher_is_better=True, tables=tables))
    return [measure for measure in made if measure.tables]


def _has(found: SetScores, metric: str) -> bool:
    return all(metric in values for values in found["values"].values())


def verdict(difference: Interval, higher_is_better: bool) -> str:
    """BETTER or WORSE where the interval is clear of 0, else OPEN."""
    if difference.low <= 0 <= difference.high:
        return OPEN
    return BETTER if (difference.mean > 0) == higher_is_better else WORSE


def claims(found: list[Measure]) -> list[str]:
    """A line for each of AGAINST: where fidelity 1 is better, where worse, and where that is open; figure by figure."""
    lines: list[str] = []
    for other, name in AGAINST.items():
        said = []
        for measure in found:
            places: dict[str, list[tuple[int, str]]] = {BETTER: [], WORSE: [], OPEN: []}
            for place, table in measure.tables.items():
                if other in table:
                    places[verdict(paired(table, FULL, other), measure.higher_is_better)].append(place)
            if any(places.values()):
                told = "; ".join(f"{word} {_places(where)}" for word, where in places.items() if where)
                said.append(f"{measure.name}: {told}.")
        if said:
            lines.append(f"* Against {name}. " + " ".join(said))
    return lines


def _places(places: Iterable[tuple[int, str]]) -> str:
    """"at scale 2, Levels I, II, and at scale 4, Level III"."""  # fmt: skip
    by_scale: dict[int, list[str]] = {}
    for scale, level in places:
        by_scale.setdefault(scale, []).append(level)
    parts = [f"at scale {scale}, Level{'s' if len(levels) > 1 else ''} {', '.join(levels)}" for scale, levels in by_scale.items()]
    return ", and ".join(parts)


def difference_table(measure: Measure) -> str:
    """Fidelity 1 less each of AGAINST, picture by picture: mean and interval, bold where it is clear of 0."""
    others = [other for other in AGAINST if any(other in table for table in measure.tables.values())]
    lines = [
        [f"{scale}, {level}", *(difference_text(paired(table, FULL, other), measure.digits) for other in others)]
        for (scale, level), table in measure.tables.items()
    ]
    direction = "higher" if measure.higher_is_better else "lower"
    headings = [f"{measure.name} ({direction} is better); scale, level", *(f"less {AGAINST[other]}" for other in others)]
    return markdown_table(headings, lines, align="lr")


def rows_table(found: list[Measure], place: tuple[int, str]) -> str:
    """Every row at one scale and level: means and intervals."""
    shown = [measure for measure in found if place in measure.tables]
    says = SAYS | {REFERENCE_ROW: "the truth itself"}
    lines = []
    for row, name in says.items():
        if not any(row in measure.tables[place] for measure in shown):
            continue
        cells = []
        for measure in shown:
            values = list(measure.tables[place].get(row, {}).values())
            cells.append(interval_text(mean_interval(values), measure.digits) if values else "")
        lines.append([name, *cells])
    return markdown_table(["row", *(measure.name for measure in shown)], lines, align="lr")


def sweep_means(sets: Iterable[SetResults]) -> dict[tuple[int, str], list[float]]:
    """Mean PSNR of every fidelity, by scale and level."""
    found: dict[tuple[int, str], list[float]] = {}
    for each in sets:
        for level, swept in each["sweep"].items():
            table = metric_table(swept, "psnr_rgb")
            found[each["scale"], level] = [statistics.mean(table[restored(f)].values()) for f in FIDELITIES]
    return found


def sweep_table(means: Mapping[tuple[int, str], list[float]]) -> str:
    """A line a fidelity, a column a scale and level."""
    headings = ["fidelity", *(f"{scale}, {level}" for scale, level in means)]
    lines = [[f"{f:g}", *(f"{values[number]:.2f}" for values in means.values())] for number, f in enumerate(FIDELITIES)]
    return markdown_table(headings, lines, align="lr")


def sweep_claim(means: Mapping[tuple[int, str], list[float]]) -> str:
    """Whether mean PSNR rises with fidelity all the way, falls, or is highest in between."""
    rises, falls, between = [], [], []
    for place, values in means.items():
        steps = [after - before for before, after in zip(values, values[1:], strict=False)]
        if all(step > 0 for step in steps):
            rises.append(place)
        elif all(step < 0 for step in steps):
            falls.append(place)
        else:
            best = max(range(len(values)), key=values.__getitem__)
            scale, level = place
            between.append(f"{scale}, {level} at {FIDELITIES[best]:g} ({values[best] - values[-1]:.2f} dB above fidelity 1)")
    parts = []
    if rises:
        parts.append(f"It rises with every step {_places(rises)}.")
    if falls:
        parts.append(f"It falls with every step {_places(falls)}.")
    if between:
        parts.append(f"It does neither at (scale, level): highest {'; '.join(between)}.")
    return " ".join(parts)
