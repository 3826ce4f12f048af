"""`evaluate`: its options."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_evaluate_verb(verbs: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    verb = verbs.add_parser("evaluate", help="compare restored pictures with their references")
    verb.add_argument("--restored", type=Path, required=True)
    verb.add_argument("--reference", type=Path, required=True)
    verb.add_argument("--lq", type=Path, help="LQ pictures, for the baseline")
    verb.add_argument("--metrics", default="psnr,ssim")
    verb.add_argument("--out", type=Path, required=True, help="the report to write (.json)")
    verb.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> None:
    """`evaluate`: scores of a folder against its references."""
    from training.evaluate import evaluate as score

    report = score(arguments.restored, arguments.reference, arguments.lq, arguments.metrics.split(","), arguments.out)
    for kind, means in report["mean"].items():
        print(
            f"{kind}: "
            + ", ".join(f"{name} {value:.4f}" if value is not None else f"{name} infinite" for name, value in means.items())
        )
    print(f"{arguments.out}: {report['count']} pictures")
