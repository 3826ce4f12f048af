"""The report as a page: tables first, then what they mean and what is missing."""

from __future__ import annotations

from training.evaluate.report import Cell, Cells, Report
from training.evaluate.rows import LQ_ROW
from training.metrics.catalogue import HIGHER, LOWER
from training.reading.scores import REFERENCE_ROW
from training.reports.tables import markdown_table

ARROWS = {True: f" {HIGHER}", False: f" {LOWER}", None: ""}
INFINITE = "\u221e"


def as_markdown(report: Report, *, paper: str) -> str:
    """The page of a report; `paper` is a section of its own, "" = none."""
    text = report.text.markdown().strip() if report.text else ""
    parts = ["# Evaluation", _inputs(report), _scores(report), _differences(report), _not_computed(report)]
    parts += [_worst(report), f"## Text\n\n{text}" if text else "", _conventions(report), paper]
    return "\n\n".join(part for part in parts if part) + "\n"


def _inputs(report: Report) -> str:
    inputs = report.inputs
    lines = [f"* {name}: `{folder}`" for name, folder in inputs.restored.items()]
    lines += [f"* {name}: `{folder}`" for name, folder in ((LQ_ROW, inputs.lq), (REFERENCE_ROW, inputs.reference)) if folder]
    sizes = [f"{count} of {size}" for size, count in report.sizes_px.items()]
    more = f" and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
    lines.append(f"* {report.count} pictures: {', '.join(sizes[:5])}{more} px; border left out: {report.border_px} px")
    for name, keys in report.unmatched.items():
        lines.append(f"* left out of {name}, because not all folders have them: {', '.join(keys)}")
    for key, reason in report.unreadable.items():
        lines.append(f"* left out of every row: {key}: {reason}")
    return "\n".join(lines)


def _scores(report: Report) -> str:
    if not report.metrics:
        return ""
    note = "Mean [95 % interval] ± standard deviation over the pictures."
    if any(cell.not_finite for row in report.rows.values() for cell in row.values()):
        note += f" {INFINITE}: so many pictures without a finite value (PSNR of equal pictures is infinite), in no mean."
    lq = " Row `lq`: the LQ pictures enlarged by bicubic interpolation." if report.inputs.lq else ""
    return f"## Scores\n\n{_table(report, report.rows, sign=False)}\n\n{note}{lq}"


def _differences(report: Report) -> str:
    rows = {row: cells for row, cells in report.differences.items() if cells}
    if not rows:
        return ""
    table = _table(report, rows, sign=True)
    title = f"## Difference to `{report.against}`, picture by picture"
    return f"{title}\n\n{table}\n\nAn interval that leaves out 0 speaks for a difference."


def _table(report: Report, rows: Cells, *, sign: bool) -> str:
    names = [name for name in report.metrics if any(name in cells for cells in rows.values())]
    digits = {name: _digits(report, name) for name in names}
    head = [f"{name}{ARROWS[report.metrics[name].higher_is_better]}" for name in names]
    lines = [[row, *(_cell(cells.get(name), digits[name], sign) for name in names)] for row, cells in rows.items()]
    return markdown_table(["row", *head], lines)


def _digits(report: Report, name: str) -> int:
    """After the point, the same in a whole column: 2 for decibels and scores up to 100, 4 for scores up to 1."""
    means = [cells[name].mean for cells in report.rows.values() if name in cells]
    return 2 if any(mean is not None and abs(mean) >= 2 for mean in means) else 4


def _cell(cell: Cell | None, digits: int, sign: bool) -> str:
    if cell is None:
        return "–"
    infinite = f"{INFINITE} {cell.not_finite}" if cell.not_finite else ""
    if not cell.count:
        return infinite
    mark = "+" if sign else ""
    mean, low, high = (f"{value:{mark}.{digits}f}" for value in (cell.mean, cell.low, cell.high))
    return f"{mean} [{low}, {high}] ± {cell.stdev:.{digits}f}{f' ({infinite})' if infinite else ''}"


def _not_computed(report: Report) -> str:
    if not report.not_computed:
        return ""
    return "## Not computed\n\n" + "\n".join(f"* `{name}`: {reason}" for name, reason in report.not_computed.items())


def _worst(report: Report) -> str:
    worst = report.worst
    if not worst.pictures:
        return ""
    lines = [f"## Worst pictures of `{worst.row}` by {worst.by}", f"From left to right: {', '.join(worst.columns)}."]
    for picture in worst.pictures:
        path = picture.picture.replace(" ", "%20")
        lines.append(f"`{picture.key}`: {picture.value:.4f}\n\n![{picture.key}]({path})")
    return "\n\n".join(lines)


def _conventions(report: Report) -> str:
    if not report.metrics:
        return ""
    lines = [
        [
            f"{name}{ARROWS[metric.higher_is_better]}",
            metric.values,
            metric.computed_with or metric.computed_by,
            metric.convention,
        ]
        for name, metric in report.metrics.items()
    ]
    table = markdown_table(["metric", "range", "computed by", "convention"], lines)
    bootstrap = report.bootstrap
    how = f"Intervals: {bootstrap.kind}, {bootstrap.resamples} resamples, seed {bootstrap.seed}."
    what = "They say how far the mean depends on the choice of pictures, and nothing of training runs."
    return f"## Conventions\n\n{table}\n\n{how} {what}"
