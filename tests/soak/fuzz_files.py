"""Hostile files by the hundred thousand: cases that hypothesis draws, and with --mutations cases made of those by changing bytes.

    fuzz_files.py --cases 10000 --mutations 100000 [--only NAME] [--first SEED] [--out FILE.json]

In an environment with COMFYUI_PATH the readers of the nodes, without it those of the trainer. Exit code 1 = a reader failed."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
import conftest  # noqa: E402 - puts the pack and, where there is one, the host on the path
from fuzz.target import LARGEST_PX, Tally, Target, throw_many, throw_mutations  # noqa: E402

if conftest.HOST:
    from fuzz.host_targets import targets
else:
    from fuzz.training_targets import targets

BATCH = 1000
"""Cases of one hypothesis run: it remembers all of a run, to repeat none."""


def fuzz(target: Target, place: Path, *, drawn: int, mutations: int, first: int) -> tuple[dict[str, Any], str]:
    """One row of the report, and what failed."""
    tally, number, left = Tally(), first, drawn
    start_s = time.process_time()
    while left > 0:
        throw_many(target, place, cases=min(left, BATCH), number=number, tally=tally)
        left, number = left - BATCH, number + 1
    count = tally.cases
    throw_mutations(target, place, cases=mutations, number=first, tally=tally)
    row = {
        "target": target.name,
        "drawn": count,
        "mutations": tally.cases - count,
        "cases": tally.cases,
        "taken": tally.taken,
        "refused": tally.refused,
        "failed": tally.failed,
        "cpu_s": round(time.process_time() - start_s, 1),
        "slowest_s": round(tally.slowest_s, 3),
        "failures": len(tally.failures),
    }
    return row, tally.report()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="drawn, over all targets")
    parser.add_argument("--mutations", type=int, default=100_000, help="made of drawn ones, over all targets")
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    Image.MAX_IMAGE_PIXELS = LARGEST_PX
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        canary, place = Path(folder) / "canary", Path(folder) / "case"
        place.mkdir()
        chosen = [target for target in targets(canary) if options.only in target.name]
        whole = sum(target.weight for target in chosen)
        for target in chosen:
            share = target.weight / whole
            drawn, mutations = round(options.cases * share), round(options.mutations * share)
            row, report = fuzz(target, place, drawn=drawn, mutations=mutations, first=options.first)
            rows.append(row)
            print(json.dumps(row), *filter(None, [report]), sep="\n", flush=True)
        ran = canary.exists()
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    total, cpu_s, failures = (sum(row[name] for row in rows) for name in ("cases", "cpu_s", "failures"))
    print(f"{total} cases, {cpu_s:.0f} s of CPU, {failures} kinds of failures, canary {'CHANGED' if ran else 'untouched'}")
    return 1 if ran or failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
