"""Runs side-by-side benchmarks, prints their table and writes one JSON: `make bench`.

    python benchmarks/run.py [NAME ...] [--out build/bench.json]

Without names: the quick ones. A benchmark is a function that returns rows (train_step.Row)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def train_step() -> Sequence[Any]:
    from train_step import quick

    return quick()


def train_step_large() -> Sequence[Any]:
    from train_step import large

    return large()


BENCHMARKS: dict[str, Callable[[], Sequence[Any]]] = {"train_step": train_step, "train_step_large": train_step_large}
QUICK = ("train_step",)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows with their columns lined up."""
    lines = [("comparison", "ratio", "lowest", "highest", "other, s", "ours, s", "notes")]
    for row in rows:
        figures = (row[name] for name in ("ratio_median", "ratio_min", "ratio_max", "a_seconds", "b_seconds"))
        lines.append((row["name"], *(f"{figure:.3f}" for figure in figures), row["notes"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"expected benchmarks of {', '.join(BENCHMARKS)}, got {', '.join(sorted(unknown))}, correct the names")
    rows: list[dict[str, Any]] = []
    for name in arguments.names or QUICK:
        started = time.monotonic()
        rows += [{"benchmark": name, **asdict(row)} for row in BENCHMARKS[name]()]
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    machine = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
