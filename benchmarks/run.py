"""Runs side-by-side benchmarks, prints their table and writes one JSON: `make bench`.

    python benchmarks/run.py [NAME ...] [--size nano|vega|sdxl] [--px N] [--device cpu|cuda] [--official FOLDER]
                             [--rounds N] [--out build/bench.json]

Without names: the quick ones. Each runs in a process of its own, with COMFYUI_PATH where it needs the host and without where it
must not see one. A benchmark is a function of `rows.Options` that returns rows."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rows import Options, Skipped

ROOT = Path(__file__).resolve().parents[1]
SIZES = ("nano", "vega", "sdxl")


def train_step(_options: Options) -> Sequence[Any]:
    from train_step import quick

    return quick()


def train_step_large(_options: Options) -> Sequence[Any]:
    from train_step import large

    return large()


def step(options: Options) -> Sequence[Any]:
    from step_time import step

    return step(options)


def tiles(options: Options) -> Sequence[Any]:
    from step_time import tiles

    return tiles(options)


def official(options: Options) -> Sequence[Any]:
    from step_official import official

    return official(options)


def supir(options: Options) -> Sequence[Any]:
    from step_supir import supir

    return supir(options)


def load(options: Options) -> Sequence[Any]:
    from load_memory import load

    return load(options)


def decode(options: Options) -> Sequence[Any]:
    from decode_cost import decode

    return decode(options)


def growth(options: Options) -> Sequence[Any]:
    from growth import growth

    return growth(options)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    start: Callable[[Options], Sequence[Any]]
    needs_host: bool = True
    quick: bool = True


BENCHMARKS = {
    "step": Benchmark(start=step),
    "official": Benchmark(start=official),
    "supir": Benchmark(start=supir),
    "tiles": Benchmark(start=tiles),
    "load": Benchmark(start=load),
    "decode": Benchmark(start=decode),
    "growth": Benchmark(start=growth),
    "train_step": Benchmark(start=train_step, needs_host=False),
    "train_step_large": Benchmark(start=train_step_large, needs_host=False, quick=False),
}


def child(name: str, options: Options, out: Path) -> None:
    """One benchmark in this process; its rows, or why there are none, go into a JSON file."""
    benchmark = BENCHMARKS[name]
    try:
        if benchmark.needs_host:
            import host_process

            host_process.enter(options.device)
        result = {"rows": [{"benchmark": name, **asdict(row)} for row in benchmark.start(options)]}
    except Skipped as reason:
        result = {"skipped": [{"benchmark": name, "reason": str(reason)}]}
    except ValueError as error:  # what was asked for cannot be had; the message says what to do
        result = {"failed": [{"benchmark": name, "reason": str(error)}]}
    out.write_text(json.dumps(result), encoding="utf-8")


def in_child(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The benchmark's result from a process of its own. One that fails says so on stderr and is listed, the others go on."""
    host = BENCHMARKS[name].needs_host
    if host and "COMFYUI_PATH" not in os.environ:
        reason = "needs a ComfyUI: name its folder in COMFYUI_PATH, or run `make bench`"
        return {"skipped": [{"benchmark": name, "reason": reason}]}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--out", str(out), "--child", name]
        variables = {k: v for k, v in os.environ.items() if host or k != "COMFYUI_PATH"}
        code = subprocess.run(command, env=variables).returncode
        if code:
            return {"failed": [{"benchmark": name, "reason": f"exit code {code}"}]}
        return json.loads(out.read_text(encoding="utf-8"))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows with their columns lined up."""
    lines = [("comparison: a / b", "ratio", "lowest", "highest", "a, s", "b, s", "notes")]
    for row in rows:
        figures = (row[name] for name in ("ratio_median", "ratio_min", "ratio_max", "a_seconds", "b_seconds"))
        lines.append((row["name"], *(f"{figure:.3f}" for figure in figures), row["notes"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
    }


def processor() -> str:
    """Its name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--size", choices=SIZES, default="nano", help="of the networks with made-up weights (default: %(default)s)"
    )
    parser.add_argument("--px", type=int, help="side of the image, of a tile (tiles), or of the largest image (growth)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--official", metavar="FOLDER", help="a checkout of the official repository, for `official`")
    parser.add_argument("--rounds", type=int, help="how often each way is timed")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--child", choices=BENCHMARKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = Options(**{name: getattr(arguments, name) for name in ("size", "px", "device", "official", "rounds")})
    if arguments.child:
        child(arguments.child, options, arguments.out)
        return 0
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"expected benchmarks of {', '.join(BENCHMARKS)}, got {', '.join(sorted(unknown))}, correct the names")
    told = [f"--{name}={value}" for name, value in asdict(options).items() if value is not None]
    report: dict[str, list[dict[str, Any]]] = {"rows": [], "skipped": [], "failed": []}
    for name in arguments.names or [name for name, benchmark in BENCHMARKS.items() if benchmark.quick]:
        started = time.monotonic()
        for kind, found in in_child(name, told).items():
            report[kind] += found
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), "options": asdict(options), **report}, indent=2)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(table(report["rows"]))
    for kind in ("skipped", "failed"):
        for entry in report[kind]:
            print(f"{kind}: {entry['benchmark']}: {entry['reason']}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
