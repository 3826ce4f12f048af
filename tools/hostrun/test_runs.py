"""The parts of `make check`, `make test`, `make test-long` and `make test-lowest`, and how each is run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .environment import Environment, ensure, ensure_oldest
from .errors import run_command
from .paths import ROOT
from .test_summary import PartResult, read_report, summary

REPORTS = ROOT / "build" / "tests"
NO_HOST = "none"
MAX_WORKERS = 4
"""A worker of tests/host takes up to 2 GB, and a server beside it 1 GB."""

LOWEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OMP_NUM_THREADS": "1",
}
"""The least that a processor may offer, by the switches of torch, oneDNN, MKL and OpenMP (servers and trainers that tests start
read them, too): kernels of another width add in another order, so every result is rounded otherwise."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One command. `arguments` follow the environment's Python; `host` is "newest", "oldest" or "none"; `workers`: how many
    processes share the test files at most (0 = this is not pytest); `beside`: it starts with the part before it, and shows what
    it printed when both have ended."""

    name: str
    arguments: tuple[str, ...]
    host: str = "newest"
    workers: int = 0
    beside: bool = False


def _pytest(name: str, *arguments: str, host: str = "newest", workers: int = MAX_WORKERS, beside: bool = False) -> Part:
    return Part(name=name, arguments=("-m", "pytest", *arguments), host=host, workers=workers, beside=beside)


LINT = (
    Part(name="lint", arguments=("-m", "ruff", "check", ".")),
    Part(name="types", arguments=("tools/type_check.py",), beside=True),
)
ONE_RUN = "tests/host/test_one_run.py"
# Processes of their own: a trainer must never see a host. tests/core knows no host, so the oldest does not repeat it.
OF_THE_NODES = ("tests/core", "tests/host", "tests/server")
SHORT, LONG = ("-m", "not long"), ("-m", "long")
OF_THE_NEWEST = ("--ignore", "tests/host/test_official.py", "--ignore", "tests/host/test_benchmarks.py")
"""The network of published size (tests/server/test_determinism.py compares both versions), and what measures."""
PARTS = {
    "check": (*LINT, _pytest("core and one run", "tests/core", ONE_RUN, *SHORT, workers=1, beside=True)),
    "lint": LINT,
    "test": (
        _pytest("newest ComfyUI", *OF_THE_NODES, *SHORT),
        _pytest("trainer", "tests/training", *SHORT, host=NO_HOST),
        _pytest("browser", "tests/browser", *SHORT, workers=1, beside=True),  # often waits for a page, and leaves the core free
    ),
    "long": (
        _pytest("newest ComfyUI", *OF_THE_NODES, *LONG),
        _pytest("oldest ComfyUI", "tests/host", *OF_THE_NEWEST, *SHORT, host="oldest"),
        _pytest("trainer", "tests/training", *LONG, host=NO_HOST),
        _pytest("browser", "tests/browser", *LONG, workers=1, beside=True),
        _pytest("oldest prompts", "tests/browser/test_validation.py", host="oldest", workers=1, beside=True),
    ),
}


def run_tests_command(arguments: Sequence[str]) -> int:
    """Exit code of the command line: 0, or 1 if a part failed."""
    parser = argparse.ArgumentParser(prog="run_tests.py", description="Run what has to pass, and end with a summary.")
    parser.add_argument("what", choices=(*PARTS, "lowest"))
    what = parser.parse_args(arguments).what

    def act() -> int:
        parts = PARTS["test" if what == "lowest" else what]
        variables = LOWEST if what == "lowest" else {}
        environments = {"newest": ensure("test")}
        environments |= {NO_HOST: environments["newest"]}
        if any(part.host == "oldest" for part in parts):
            environments["oldest"] = ensure_oldest()
        started_s = time.monotonic()
        results: list[PartResult] = []
        for group in groups(parts):
            with ThreadPoolExecutor(len(group)) as pool:
                ended = list(pool.map(lambda part: _run(part, environments[part.host], variables), group))
            for result, printed in ended:
                results.append(result)
                sys.stdout.write(printed)
        print(summary(f"make {_target(what)}", results, time.monotonic() - started_s), flush=True)
        return 0 if all(result.passed for result in results) else 1

    return run_command(act)


def groups(parts: Sequence[Part]) -> list[list[Part]]:
    """What runs at one time, in order."""
    found: list[list[Part]] = []
    for part in parts:
        if part.beside:
            found[-1].append(part)
        else:
            found.append([part])
    return found


def _target(what: str) -> str:
    return {"long": "test-long", "lowest": "test-lowest"}.get(what, what)


def _run(part: Part, environment: Environment, variables: dict[str, str]) -> tuple[PartResult, str]:
    """Run it to its end; with what it printed, if nobody has seen that yet."""
    command = [str(environment.python), *part.arguments]
    report = REPORTS / f"{part.name.replace(' ', '_')}.xml"
    if part.workers:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        workers = min(part.workers, usable_cores())  # one more than cores gains nothing (measured on two)
        # By files: what a file's fixtures make is made once. tests/support/file_order.py puts the long ones first.
        shared = ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"] if workers > 1 else []
        command += [*shared, f"--junitxml={report}"]
    hidden = ("COMFYUI_PATH", "PYTHONPATH", "PYTHONHOME")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    if part.host != NO_HOST:
        inherited["COMFYUI_PATH"] = str(environment.host)
    title = f"\n=== {part.name}: {' '.join(part.arguments)}\n"
    if not part.beside:
        sys.stdout.write(title)
        sys.stdout.flush()
    started_s = time.monotonic()
    output, errors = (subprocess.PIPE, subprocess.STDOUT) if part.beside else (None, None)
    process = subprocess.Popen(command, cwd=ROOT, env=inherited | variables, stdout=output, stderr=errors)
    try:
        printed, _ = process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    result = read_report(part.name, process.returncode, time.monotonic() - started_s, report if part.workers else None)
    return result, title + printed.decode(errors="replace") if part.beside else ""


def usable_cores() -> int:
    """Those that this process may use, which a container can cut down."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
