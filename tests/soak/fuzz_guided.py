"""The same readers and cases with a fuzzer that looks where the code goes (atheris), from a corpus of hypothesis' cases.

    fuzz_guided.py --cases 20000 --seconds 60 [--only NAME] [--out FILE.json]

The fuzzer is no part of the environment: it is fetched once, pinned, into the project's cache folder; where it has no wheel
(3.0.0: CPython 3.11 to 3.13 on Linux) this says so and does nothing. Each target is a fork of this process, because the fuzzer
ends its own."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
import conftest  # noqa: E402 - puts the pack and, where there is one, the host on the path
from hostrun.paths import cache_dir  # noqa: E402

FUZZER = "atheris==3.0.0"
MOST_BYTES = 4096
"""Of a case. Headers and opcodes lie at the front; what is longer hides them."""
SEEDS = 100
RSS_LIMIT_MIB = 4000
SECONDS_LIMIT = 60
"""The fuzzer's own limit for one case, in case a reader never comes back to Python."""
INSTRUMENTED = ("comfyui_faithdiff", "training", "faithdiff_core", "tarfile", "zipfile", "pickle")


def fetch_fuzzer() -> Path | None:
    """Where the fuzzer is installed; None where there is no wheel of it."""
    place = cache_dir() / f"fuzz-{FUZZER.replace('==', '-')}-py{sys.version_info[0]}{sys.version_info[1]}"
    if not (place / "atheris").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*command, "--target", str(place), FUZZER], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"skipped: no wheel of {FUZZER} for this Python and system ({last[:200]})")
            return None
    return place


def fuzz(target: Any, folder: Path, options: argparse.Namespace) -> None:
    """Never returns: the fuzzer ends the process."""
    import atheris
    from fuzz.target import Tally, run_case, throw_many

    corpus, place = folder / "corpus", folder / "case"
    corpus.mkdir()
    place.mkdir()
    seeds: list[bytes] = []
    collector = type(target)(name=target.name, cases=target.cases, read=lambda case, _: seeds.append(case), short=0)
    throw_many(collector, place, cases=SEEDS, number=1, tally=Tally())
    for number, case in enumerate(seeds):
        (corpus / str(number)).write_bytes(case[:MOST_BYTES])
    arguments = [
        *(sys.argv[0], str(corpus), f"-runs={options.cases}", f"-max_total_time={options.seconds}", f"-max_len={MOST_BYTES}"),
        *(f"-rss_limit_mb={RSS_LIMIT_MIB}", f"-timeout={SECONDS_LIMIT}", "-seed=1", f"-artifact_prefix={folder}/"),
    ]
    atheris.Setup(arguments, lambda case: run_case(target, case, place))
    atheris.Fuzz()


def fuzz_in_fork(target: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pid = os.fork()
        if not pid:
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            try:
                fuzz(target, folder, options)
            finally:
                os._exit(70)
        _, status, used = os.wait4(pid, 0)
        told = (folder / "log").read_text(encoding="utf-8", errors="replace")
    ended = re.search(r"Done (\d+) runs in (\d+) second", told)
    whole = status == 0 and ended is not None
    if not whole:
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
    fuzzer = fetch_fuzzer()
    if fuzzer is None:
        return 0
    sys.path.append(str(fuzzer))
    import atheris

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
    for target in targets(Path("/nonexistent/canary")):
        if options.only in target.name:
            rows.append(fuzz_in_fork(target, options))
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    failed = [row["target"] for row in rows if not row["whole"]]
    total, cpu_s = sum(row["cases"] for row in rows), sum(row["cpu_s"] for row in rows)
    print(f"{total} cases, {cpu_s:.0f} s of CPU, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
