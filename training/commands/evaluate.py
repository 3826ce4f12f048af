"""`evaluate`: folders of pictures against their references."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.metrics.catalogue import DEFAULT_METRICS, METRICS, PYIQA_PREFIX
from training.reading.engines import ENGINES


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    verb = verbs.add_parser("evaluate", help="compare restored pictures with their references")
    verb.add_argument(
        "--restored", action="append", required=True, metavar="[NAME=]DIR", help="restored pictures; repeat it for several rows"
    )
    verb.add_argument("--reference", type=Path, required=True, metavar="DIR")
    verb.add_argument("--lq", type=Path, metavar="DIR", help="LQ pictures: the row `lq`, enlarged by bicubic interpolation")
    verb.add_argument(
        "--metrics", default=",".join(DEFAULT_METRICS), metavar="NAME,...",
        help=f"of {', '.join(METRICS)}, or {PYIQA_PREFIX}NAME for any of pyiqa's (default: {', '.join(DEFAULT_METRICS)})",
    )  # fmt: skip
    verb.add_argument("--border", type=int, default=0, metavar="PX", help="leave out so much at every side")
    verb.add_argument("--weights", type=Path, metavar="DIR", help="folder of weight files; nothing is downloaded")
    verb.add_argument("--pyiqa", type=Path, metavar="PYTHON", help="Python of an environment that has pyiqa")
    verb.add_argument("--against", metavar="ROW", help="row that the others are compared with (default: lq, where given)")
    verb.add_argument("--allow-missing", action="store_true", help="use the keys that all folders have, list the others")
    verb.add_argument("--worst", type=int, default=5, metavar="N", help="show the N worst pictures of the first row")
    verb.add_argument("--worst-by", metavar="METRIC", help="default: the first metric")
    verb.add_argument("--text", type=Path, metavar="ANNOTATIONS", help="words and their boxes (.json): read them in every row")
    verb.add_argument("--ocr", default=",".join(ENGINES), metavar="ENGINE,...", help="what reads them")
    verb.add_argument(
        "--paper", action=argparse.BooleanOptionalAction, default=None,
        help="all, or none, of the paper's own tables in the page (default: those with the metrics that were computed)",
    )  # fmt: skip
    verb.add_argument("--out", type=Path, required=True, metavar="REPORT", help="the report to write (.json, and .md beside it)")
    verb.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """`evaluate`: scores of folders against their references."""
    from training.evaluate.evaluate import Evaluation
    from training.evaluate.evaluate import evaluate as score
    from training.evaluate.rows import LQ_ROW, named_folders
    from training.reading.scores import REFERENCE_ROW

    restored = named_folders("--restored", arguments.restored, taken=(LQ_ROW, REFERENCE_ROW))
    report, tally = score(
        Evaluation(
            restored=restored, reference=arguments.reference, lq=arguments.lq, out=arguments.out,
            metrics=_names(arguments.metrics), border_px=arguments.border, weights=arguments.weights, pyiqa=arguments.pyiqa,
            against=arguments.against, allow_missing=arguments.allow_missing, worst=arguments.worst,
            worst_by=arguments.worst_by, text=arguments.text, ocr=_names(arguments.ocr), paper=arguments.paper,
        )
    )  # fmt: skip
    for row, cells in report.rows.items():
        if cells:
            print(f"{row}: " + ", ".join(f"{name} {_number(cell.mean)}" for name, cell in cells.items()))
    for name, reason in report.not_computed.items():
        print(f"not computed: {name}: {reason}")
    for line in tally.lines():
        print(line, file=sys.stderr)
    print(f"{arguments.out}: {tally.summary()}; as a page: {arguments.out.with_suffix('.md')}")
    return tally.exit_code


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.4f}"
