"""Soak: hundreds of queued runs with changing sizes, models and settings on one server. Prints what it holds, as JSON.

    python tools/environment.py --with test --run tests/soak/leaks.py [--runs 300] [--largest-px 320] [--out build/leaks.json]

What a slope is made of: --same size|weights|report keeps one thing still, --forget drops the host's history after each run.
Exit code 1 if open files or threads grow after the tenth run, a temporary file is left, or memory still grows faster in the
second half than MAX_SLOPE_KIB a run."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path += [str(TESTS), str(ROOT / "tools")]

import conftest  # noqa: E402, F401 - puts the pack and the host on the path
from hostrun.client import Client  # noqa: E402
from hostrun.server import HostServer, ServerOptions, free_port  # noqa: E402
from support.soak import SAME, SETTLED_AFTER, Reading, copies_of_the_model, read, run_all, slope_per_run, varied  # noqa: E402

MIB = 1024**2
PHOTO = "photo_lq.png"
LARGE_BYTES = 65536
"""glibc keeps what was freed between blocks in use, and sizes that change leave holes: resident memory then says what was held
at most, not what is held. From this size on, tensors get pages of their own, which go back to the system when they are freed."""
MAX_SLOPE_KIB = 100
"""A run, in the second half. What could be kept of a run is larger: the nano model's features of a 160 px image have 100 KiB.
Smaller are what the safetensors library and the host's history keep, and an allocator's fragments:
docs/engineering/reliability.md."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--largest-px", type=int, default=320)
    parser.add_argument("--models", type=int, default=3, help="copies of the nano model, which take turns")
    parser.add_argument("--same", action="append", choices=SAME, default=[], help="does not change from run to run")
    parser.add_argument("--forget", action="store_true", help="drop the host's history after each run")
    parser.add_argument("--own-allocator", action="store_true", help="as users run it: glibc keeps pages that were freed")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "leaks.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faithdiff-soak-") as folder:
        results = soak(Path(folder), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in results.items() if key != "resident_mib"}, indent=2))
    return 0 if results["flat"] else 1


def soak(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of all phases: the host alone, this pack's runs, and after the request to unload."""
    temp = base / "system-temp"
    temp.mkdir()
    os.environ["TMPDIR"] = str(temp)  # the server inherits it
    if not options.own_allocator:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = str(LARGE_BYTES)
    demo = json.loads((ROOT / "workflows" / "api" / "faithdiff_demo.json").read_text(encoding="utf-8"))
    models = copies_of_the_model(ROOT / "demo", base / "models" / "faithdiff", options.models)
    server = HostServer(
        ServerOptions(
            python=Path(sys.executable), host=Path(os.environ["COMFYUI_PATH"]), base=base, port=free_port(), cpu=True,
            extra_arguments=["--preview-method", "none", "--cache-classic"],
        )
    )  # fmt: skip
    server.input_folder.mkdir()
    shutil.copyfile(ROOT / "demo" / PHOTO, server.input_folder / PHOTO)
    prompts = varied(demo, models, seed=0, largest_px=options.largest_px, same=options.same)
    with server, Client(server.url, check_server=server.check_running) as client:
        at_start = read(server, temp)
        host = run_all(client, server, of_the_host(), min(options.runs, 100), temp)
        began_s = time.monotonic()
        ours = run_all(client, server, prompts, options.runs, temp, forget=options.forget)
        took_s = time.monotonic() - began_s
        client.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(5)  # the server's worker looks for the request once a second
        unloaded = read(server, temp)
    return figures(at_start, host, ours, unloaded) | {"seconds_per_run": round(took_s / options.runs, 2)}


def of_the_host() -> Iterator[dict[str, Any]]:
    """Runs without a node of ours: what the host itself keeps of each run, its history for one."""
    for number in range(10**9):
        yield {
            "1": {"class_type": "LoadImage", "inputs": {"image": PHOTO}},
            "2": {
                "class_type": "ImageScale",
                "inputs": {
                    "image": ["1", 0],
                    "upscale_method": "bilinear",
                    "crop": "disabled",
                    "width": 64 + number,
                    "height": 64,
                },
            },
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "host"}},
        }


def figures(at_start: Reading, host: list[Reading], ours: list[Reading], unloaded: Reading) -> dict[str, Any]:
    """The table of docs/engineering/reliability.md. Memory in MiB, slopes in KiB a run over the runs after the tenth."""
    settled = ours[SETTLED_AFTER:]
    tenth = max(1, len(settled) // 10)
    first, last = (sum(r.resident_bytes for r in part) / len(part) for part in (settled[:tenth], settled[-tenth:]))
    growth_frac = (last - first) / first
    open_files = [r.open_files for r in settled]
    threads = [r.threads for r in settled]
    later_kib = slope_per_run([r.resident_bytes / 1024 for r in settled[len(settled) // 2 :]])
    left = max(r.temporary_files for r in (*ours, unloaded))
    return {
        "runs": len(ours),
        "resident_mib_at_start": round(at_start.resident_bytes / MIB, 1),
        "resident_mib_after_tenth": round(first / MIB, 1),
        "resident_mib_at_end": round(last / MIB, 1),
        "resident_mib_highest": round(max(r.resident_bytes for r in ours) / MIB, 1),
        "resident_mib_unloaded": round(unloaded.resident_bytes / MIB, 1),
        "growth_frac": round(growth_frac, 4),
        "slope_kib_per_run": round(slope_per_run([r.resident_bytes / 1024 for r in settled]), 2),
        "slope_kib_per_run_second_half": round(later_kib, 2),
        "slope_kib_per_run_host_alone": round(slope_per_run([r.resident_bytes / 1024 for r in host[SETTLED_AFTER:]]), 2),
        "open_files": [min(open_files), max(open_files), open_files[-1]],
        "threads": [min(threads), max(threads), threads[-1]],
        "temporary_files_left": left,
        "flat": later_kib <= MAX_SLOPE_KIB and open_files[-1] <= open_files[0] and threads[-1] <= threads[0] and not left,
        "resident_mib": [round(r.resident_bytes / MIB, 1) for r in ours],
    }


if __name__ == "__main__":
    sys.exit(main())
