"""The same readers and cases with a fuzzer that looks where the code goes (atheris), from a corpus of hypothesis' cases.

    fuzz_guided.py --cases 20000 --seconds 60 [--only NAME] [--out FILE.json]

Where the fuzzer has no wheel (fuzz_guided.txt) this says so and does nothing. Each target is a fork of this process, because
the fuzzer ends its own."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "soak")]
import conftest  # noqa: E402 - puts the pack and, where there is one, the host on the path
from fetched import fetched  # noqa: E402
from fuzz.target import LARGEST_PX, drawn, run_case  # noqa: E402
from support.forks import start  # noqa: E402

MAX_BYTES = 4096
"""Of a case. Headers and opcodes lie at the front; what is longer hides them."""
SEEDS = 100
RSS_LIMIT_MIB = 4000
SECONDS_LIMIT = 60
"""The fuzzer's own limit for one case, in case a reader never comes back to Python."""
INSTRUMENTED = ("comfyui_faithdiff", "training", "faithdiff_core", "tarfile", "zipfile", "pickle")


def fuzz(target: Any, folder: Path, options: argparse.Namespace) -> int:
    """Never returns: the fuzzer ends the process."""
    import atheris

    corpus, place = folder / "corpus", folder / "case"
    corpus.mkdir()
    place.mkdir()
    for number, case in enumerate(drawn(target, place, cases=SEEDS, number=1)):
        (corpus / str(number)).write_bytes(case[:MAX_BYTES])
    arguments = [
        *(sys.argv[0], str(corpus), f"-runs={options.cases}", f"-max_total_time={options.seconds}", f"-max_len={MAX_BYTES}"),
        *(f"-rss_limit_mb={RSS_LIMIT_MIB}", f"-timeout={SECONDS_LIMIT}", "-seed=1", f"-artifact_prefix={folder}/"),
    ]
    atheris.Setup(arguments, lambda case: run_case(target, case, place))
    atheris.Fuzz()
    raise AssertionError("expected the fuzzer to end the process")


def fuzz_in_fork(target: Any, canary: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, status, used = os.wait4(start(lambda: fuzz(target, folder, options), folder / "log"), 0)
        told = (folder / "log").read_text(encoding="utf-8", errors="replace")
    ended = re.search(r"Done (\d+) runs in (\d+) second", told)
    whole = status == 0 and ended is not None and not canary.exists()
    if not whole:
        print("canary", "CHANGED" if canary.exists() else "untouched")
        print("\n".join(line[:300] for line in told.splitlines()[-30:]))
    edges = [int(each) for each in re.findall(r"cov: (\d+)", told)]
    return {
        "target": target.name,
        "cases": int(ended[1]) if ended else 0,
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "edges_of_seeds": int(found[1]) if (found := re.search(r"INITED cov: (\d+)", told)) else 0,
        "edges": max(edges, default=0),
        "whole": whole,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="for each target, at most")
    parser.add_argument("--seconds", type=int, default=60, help="for each target, at most")
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        sys.path.append(str(fetched(Path(__file__).with_suffix(".txt"))))
    except ValueError as error:
        print(f"skipped: no fuzzer for this Python and system ({error})")
        return 0
    import atheris

    Image.MAX_IMAGE_PIXELS = LARGEST_PX
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for name in ("tarfile", "zipfile", "pickle"):
        sys.modules.pop(name, None)  # to be read again, with marks at its branches
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        if conftest.HOST:
            from fuzz.host_targets import targets
        else:
            from fuzz.training_targets import targets
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        for target in targets(canary):
            if options.only in target.name:
                rows.append(fuzz_in_fork(target, canary, options))
                print(json.dumps(rows[-1]), flush=True)
                canary.unlink(missing_ok=True)  # the next target's is its own
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    failed = [row["target"] for row in rows if not row["whole"]]
    total, cpu_s = sum(row["cases"] for row in rows), sum(row["cpu_s"] for row in rows)
    print(f"{total} cases, {cpu_s:.0f} s of CPU, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
