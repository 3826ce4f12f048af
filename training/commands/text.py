"""`text-set` and `read-text`: pictures of words, and what OCR engines still read of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.commands.shared import add_again
from training.reading.engines import ENGINES
from training.reading.match import MatchRule


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the commands and their options."""
    verb = verbs.add_parser("text-set", help="make pictures of words and annotations.json, to measure text fidelity with")
    verb.add_argument("out", type=Path, metavar="OUT", help="folder for the pictures and annotations.json")
    verb.add_argument("--count", type=int, default=24, metavar="N", help="pictures in all; the sizes take turns")
    verb.add_argument("--size", type=int, nargs="+", default=[24, 32, 40], metavar="PX", help="font sizes (em), one a picture")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--font", type=Path, metavar="FILE", help="a .ttf or .otf file (default: the font that Pillow brings)")
    verb.add_argument("--side", type=int, default=256, metavar="PX", help="width and height of the pictures")
    add_again(verb)
    verb.set_defaults(run=text_set)

    verb = verbs.add_parser("read-text", help="read pictures with OCR engines and count the words that are right")
    verb.add_argument(
        "--row",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="pictures in the annotated size; repeat it. Name the undegraded ones `reference`, the degraded ones `lq`",
    )
    verb.add_argument("--text", type=Path, required=True, metavar="FILE", help="annotations.json of the pictures")
    verb.add_argument("--ocr", default=",".join(ENGINES), metavar="ENGINES", help=f"default: {','.join(ENGINES)}")
    verb.add_argument("--min-iou", type=float, default=MatchRule.min_iou, help="least overlap of a found box with the true one")
    verb.add_argument(
        "--min-similarity", type=float, default=MatchRule.min_similarity, help="least 1 - normalised edit distance of the texts"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the bootstrap intervals")
    verb.add_argument("--out", type=Path, required=True, help="the report to write (.json; a .md goes beside it)")
    verb.set_defaults(run=read_text)


def text_set(arguments: argparse.Namespace) -> None:
    """`text-set`: write a text set."""
    from training.reading.annotations import NAME
    from training.reading.word_pictures import write_set

    keys = write_set(
        arguments.out, count=arguments.count, font_px=arguments.size, seed=arguments.seed, font=arguments.font,
        side_px=arguments.side, again=arguments.again,
    )  # fmt: skip
    print(f"{arguments.out}: {len(keys)} pictures and {NAME}")


def read_text(arguments: argparse.Namespace) -> int:
    """`read-text`: score folders against annotations."""
    from training.common.files import write_json, write_text
    from training.common.folders import Tally
    from training.common.results import require_own
    from training.evaluate.evaluate import is_page, is_report
    from training.evaluate.rows import by_key, check_readable, named_folders
    from training.reading.annotations import read_annotations
    from training.reading.fidelity import score_text
    from training.reading.scores import REFERENCE_ROW

    out: Path = arguments.out
    if out.suffix != ".json":
        raise ValueError(f"expected a .json to write the report to, got {out}, correct --out")
    require_own(out, "report", is_report, [arguments.text])
    require_own(out.with_suffix(".md"), "page of a report", is_page)
    tally = Tally()
    rows = {name: by_key(folder, tally.left_out) for name, folder in named_folders("--row", arguments.row).items()}
    if REFERENCE_ROW not in rows:
        print(
            f"warning: no row is named {REFERENCE_ROW!r}; without the undegraded pictures nobody can tell an error of the "
            f"restoration from one of the engine. Add --row {REFERENCE_ROW}=DIR",
            file=sys.stderr,
        )
    rule = MatchRule(min_iou=arguments.min_iou, min_similarity=arguments.min_similarity)
    rows = check_readable(rows, tally, keys=read_annotations(arguments.text))
    scores = score_text(rows, arguments.text, arguments.ocr.split(","), rule=rule, seed=arguments.seed)
    write_json(out, scores.as_json())
    write_text(out.with_suffix(".md"), scores.markdown())
    print(scores.markdown())
    tally.done = len(scores.keys)
    for line in tally.lines():
        print(line, file=sys.stderr)
    print(f"{out}: {tally.summary()}, {len(rows)} rows")
    return tally.exit_code
