"""The study's tables, from its scores alone: the same scores give the same text."""

from __future__ import annotations

from collections.abc import Sequence

from training.reading.scores import REFERENCE_ROW
from training.reports.bootstrap import Interval, mean_interval, paired_interval, within_interval
from training.reports.tables import markdown_table
from training.study.methods import CEILING, FLOOR, FLOOR_WAVELET, SAMPLINGS
from training.study.scores import SetScores, recalls, unit_means

Table = dict[str, dict[str, float]]
"""row -> photo or picture -> value."""
SAYS = {
    "lq": "the LQ picture, bicubic",
    "classical": "non-local means, bicubic",
    "learned": "Real-ESRGAN x4plus",
    FLOOR: "the LQ picture through the VAE",
    FLOOR_WAVELET: "the same, colours by wavelet",
    **{row: f"FaithDiff nano, {each.steps} steps, colours by {each.colour}" for row, each in SAMPLINGS.items()},
    CEILING: "the truth through the VAE",
    REFERENCE_ROW: "the truth itself",
}


def metric_table(scores: SetScores, metric: str) -> Table:
    """One metric of all rows, by photo, of the photos that every row has a value for."""
    table = {row: unit_means(values[metric]) for row, values in scores["values"].items()}
    shared = set.intersection(*(set(values) for values in table.values()))
    return {row: {unit: value for unit, value in values.items() if unit in shared} for row, values in table.items()}


def recall_table(scores: SetScores, engine: str) -> Table:
    """An engine's recall of all rows, by picture."""
    return {row: recalls(counts) for row, counts in scores.get("text", {})[engine].items()}


def shipped_table(scores: SetScores, metrics: Sequence[str], engines: Sequence[str]) -> str:
    """Rows by columns: each metric's mean and interval, and its paired difference to the floor."""
    columns: list[tuple[str, Table]] = [(name, metric_table(scores, name)) for name in metrics]
    columns += [(f"recall, {name}", recall_table(scores, name)) for name in engines if name in scores.get("text", {})]
    rows = [row for row in SAYS if any(row in table for _, table in columns)]
    headings = ["row"] + [text for name, _ in columns for text in (name, "less floor")]
    lines = []
    for row in rows:
        cells = [SAYS[row]]
        for _, table in columns:
            if row not in table:
                cells += ["", ""]
                continue
            cells.append(interval_text(mean_interval(list(table[row].values()))))
            cells.append("" if row == FLOOR else difference_text(paired(table, row, FLOOR)))
        lines.append(cells)
    return markdown_table(headings, lines, align="lr")


def paired(table: Table, row: str, other: str) -> Interval:
    """The mean difference of two rows, picture by picture."""
    return paired_interval(list(table[row].values()), [table[other][unit] for unit in table[row]])


def claim(table: Table, row: str, what: str, digits: int) -> str:
    """One line: the row against the floor, by plain intervals, by within-picture intervals and by the paired difference."""
    plain = {name: mean_interval(list(table[name].values())) for name in (row, FLOOR)}
    within = within_interval({name: list(table[name].values()) for name in (FLOOR, row, CEILING)})
    difference = paired(table, row, FLOOR)
    coloured = difference_text(paired(table, row, FLOOR_WAVELET), digits)
    gap = paired(table, CEILING, FLOOR).mean
    way = f"{difference.mean / gap:.0%} of the way from floor to ceiling" if gap > 0 else "no gap between floor and ceiling"
    return (
        f"{what}: {plain[row].mean:.{digits}f} against {plain[FLOOR].mean:.{digits}f}, "
        f"difference {difference_text(difference, digits)} ({coloured} to the floor with colours put back), {way}. "
        f"Intervals of the two means: plain {_ends(plain[row], digits)} and "
        f"{_ends(plain[FLOOR], digits)} ({_verdict(plain[row], plain[FLOOR])}); within pictures {_ends(within[row], digits)} and "
        f"{_ends(within[FLOOR], digits)} ({_verdict(within[row], within[FLOOR])})."
    )


def _verdict(row: Interval, floor: Interval) -> str:
    if row.low > floor.high:
        return "apart, better"
    return "apart, worse" if row.high < floor.low else "they overlap"


def _ends(interval: Interval, digits: int) -> str:
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def interval_text(interval: Interval, digits: int = 3) -> str:
    """Mean and 95 % interval."""
    digits = 2 if abs(interval.mean) >= 10 else digits
    return f"{interval.mean:.{digits}f} {_ends(interval, digits)}"


def difference_text(interval: Interval, digits: int = 3) -> str:
    """The same with a sign; bold where the interval is clear of 0."""
    text = f"{interval.mean:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    return f"**{text}**" if interval.low > 0 or interval.high < 0 else text
