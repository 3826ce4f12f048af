"""`evaluate`: restored pictures against their references: scores, differences, the worst pictures, text."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.common.files import write_json, write_text
from training.common.folders import Tally
from training.common.images import read_image, write_png
from training.common.results import require_own
from training.common.strict_json import parse_json
from training.evaluate.markdown import as_markdown
from training.evaluate.paper import TEXT, paper_section
from training.evaluate.report import Inputs, Report, Worst, WorstPicture, report_of, worst_keys
from training.evaluate.rows import LQ_ROW, Paths, check_sizes, enlarge, join
from training.evaluate.scores import Scores, score_rows
from training.metrics.catalogue import metrics_named
from training.reading.scores import REFERENCE_ROW, TextScores
from training.reports.sheets import sheet

Rows = dict[str, dict[str, Path]]
GAP_PX = 8
"""White between the parts of a strip."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is evaluated and how; the names are those of the command's options."""

    restored: dict[str, Path]
    """Row name to folder."""
    reference: Path
    lq: Path | None
    out: Path
    """The .json; the .md lies beside it, and the worst pictures in the folder STEM_worst."""
    metrics: tuple[str, ...]
    border_px: int
    weights: Path | None
    pyiqa: Path | None
    against: str | None
    """None: the LQ row, if there is one."""
    allow_missing: bool
    worst: int
    worst_by: str | None
    """None: the first metric that was computed."""
    text: Path | None
    ocr: tuple[str, ...]
    paper: bool | None
    """None: the tables that belong to what was computed."""


def evaluate(options: Evaluation) -> tuple[Report, Tally]:
    """Compare the folders and write the report; returns it, and how the pictures went.

    A picture that cannot be read in any row is in no row. The same pictures and options give the same bytes.

    Raises:
        ValueError: before anything is computed or written: unknown names, keys that do not match, other sizes.
    """
    _check(options)
    joined = join(options.restored, options.reference, options.lq, allow_missing=options.allow_missing)
    sizes_px = check_sizes(joined.rows, joined.reference, options.border_px)
    with tempfile.TemporaryDirectory() as folder:
        rows: Rows = dict(joined.rows)
        if joined.lq is not None:
            rows[LQ_ROW] = enlarge(joined.lq, sizes_px, Path(folder), progress=True)
        # Text first: what is wrong with the annotations shows before the metrics take their time.
        text = _text(options, {**rows, REFERENCE_ROW: joined.reference})
        scored = dict(rows)
        if any(metric.needs_reference is not True for metric in metrics_named(options.metrics).values()):
            scored[REFERENCE_ROW] = joined.reference
        scores = score_rows(
            scored,
            joined.reference,
            options.metrics,
            border_px=options.border_px,
            weights=options.weights,
            pyiqa=options.pyiqa,
        )
        report = report_of(
            scores,
            inputs=_inputs(options),
            border_px=options.border_px,
            unmatched=joined.unmatched,
            unreadable=dict(sorted(joined.tally.failed.items())),
            against=options.against or (LQ_ROW if options.lq else None),
            text=text,
            worst=_worst(options, scores, rows, joined.reference),
        )
    computed = [*scores.metrics, *([TEXT] if text else [])]
    write_text(options.out.with_suffix(".md"), as_markdown(report, paper=paper_section(computed, options.paper)))
    write_json(options.out, report.as_json())
    joined.tally.done = len(scores.sizes_px)
    return report, joined.tally


def _check(options: Evaluation) -> None:
    names = metrics_named(options.metrics)
    if options.out.suffix != ".json":
        raise ValueError(f"expected --out to end in .json, got {options.out}, the page gets the same name with .md")
    if options.worst_by is not None and not metrics_named([options.worst_by]).keys() <= names.keys():
        raise ValueError(f"expected --worst-by among {', '.join(names)}, got {options.worst_by!r}, add it to --metrics")
    if not 0 <= options.worst <= 99:
        raise ValueError(f"expected --worst from 0 to 99, got {options.worst}, choose for example 5")
    rows = [*options.restored, *([LQ_ROW] if options.lq else [])]
    if options.against is not None and options.against not in rows:
        raise ValueError(f"expected --against among {', '.join(rows)}, got {options.against!r}, name one of the rows")
    if options.text is not None and not options.text.is_file():
        raise ValueError(f"expected --text to be a file of annotations, got {options.text}, check the path")
    require_own(options.out, "report", is_report, [options.text])
    require_own(options.out.with_suffix(".md"), "page of a report", is_page)
    worst = _worst_folder(options.out)
    if worst.exists() and not options.out.exists() and any(worst.iterdir()):  # pictures of an earlier report go (strips.py)
        raise ValueError(f"expected a new folder for the worst pictures, got {worst} and no {options.out}; choose another --out")


def is_report(path: Path) -> bool:
    """Whether the file is a report of this command or of `read-text`.

    Raises:
        ValueError, OSError: it is no JSON; it cannot be read.
    """
    value = parse_json(path.read_bytes(), odd_numbers=True)
    return isinstance(value, dict) and (value.keys() >= {"inputs", "rows"} or value.keys() >= {"annotated_pictures", "protocol"})


def is_page(path: Path) -> bool:
    """Whether the file is the page of such a report: there is one beside it.

    Raises:
        ValueError, OSError: what is beside it is none, or cannot be read.
    """
    return is_report(path.with_suffix(".json"))


def _worst_folder(out: Path) -> Path:
    return out.with_name(f"{out.stem}_worst")


def _inputs(options: Evaluation) -> Inputs:
    return Inputs(
        restored={name: folder.as_posix() for name, folder in options.restored.items()},
        lq=options.lq.as_posix() if options.lq else None,
        reference=options.reference.as_posix(),
    )


def _text(options: Evaluation, rows: Mapping[str, Paths]) -> TextScores | None:
    """What was read of the annotated words; None without annotations."""
    if options.text is None:
        return None
    from training.reading.fidelity import score_text

    return score_text(rows, options.text, options.ocr)


def _worst(options: Evaluation, scores: Scores, rows: Rows, reference: Paths) -> Worst:
    """The worst pictures of the first restored row, with a strip each. If the metric was not computed, the first that was."""
    row = next(iter(options.restored))
    wanted = next(iter(metrics_named([options.worst_by]))) if options.worst_by else None
    by = wanted if wanted in scores.values[row] else next(iter(scores.values[row]), None)
    keys = worst_keys(scores, row, by, options.worst) if by else []
    columns = {name: rows[name] for name in (LQ_ROW, *options.restored) if name in rows} | {REFERENCE_ROW: reference}
    strips = write_strips(_worst_folder(options.out), keys, columns)
    found = [
        WorstPicture(key=key, value=scores.values[row][by][key], picture=strips[key].relative_to(options.out.parent).as_posix())
        for key in keys
        if by
    ]
    return Worst(row=row, by=by, columns=list(columns), pictures=found)


def write_strips(folder: Path, keys: Sequence[str], columns: Mapping[str, Paths]) -> dict[str, Path]:
    """One PNG a key with the pictures of `columns` side by side at full size, numbered in the order of `keys`; their paths.

    Strips that an earlier report left in `folder` are removed.
    """
    written: dict[str, Path] = {}
    for number, key in enumerate(keys, start=1):
        written[key] = folder / f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]', '_', key)}.png"
        write_png(written[key], sheet([[read_image(paths[key]) for paths in columns.values()]], gap_px=GAP_PX))
    for path in folder.glob("[0-9][0-9]_*.png"):
        if path not in written.values():
            path.unlink()
    return written
