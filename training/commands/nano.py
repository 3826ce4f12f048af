"""`nano`: the nano model, from pictures to both weight files."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    verb = verbs.add_parser("nano", help="make the nano model: all stages, each from its last checkpoint")
    verb.add_argument("--out", type=Path, required=True, help="folder for the two weight files")
    verb.add_argument("--work", type=Path, default=Path("runs/nano"), help="folder for manifest, checkpoints and logs")
    verb.add_argument("--stages", nargs="+", metavar="STAGE", help="prepare, vae, prior, align, joint, export (default: all)")
    verb.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="replace settings of these stages' recipes"
    )
    verb.set_defaults(run=nano)


def nano(arguments: argparse.Namespace) -> None:
    """`nano`: make the nano model."""
    from training.stages.nano import STAGES, make

    make(arguments.out, arguments.work, arguments.stages or list(STAGES), arguments.set, print)
