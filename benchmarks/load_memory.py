"""How long loading takes and how much RAM, from the released layout as a pickle (.bin) and from our .safetensors, with made-up
weights, fp16 and fp32.

Each load runs in a process of its own, in the host's process image, CPU only. Reported per file: its size, the growth of the
process's anonymous memory (copies) and of its whole resident memory (copies, and pages of the file that it has mapped), both
at their peak. Seconds are wall time, of files that the system has just written and still holds.

    python benchmarks/run.py load [--size nano|vega|sdxl]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import host_process
from rows import Options, Row, compared

DTYPES = ("fp16", "fp32")
SUFFIXES = (".bin", ".safetensors")
ROUNDS = {"nano": 2, "vega": 2, "sdxl": 1}


def load(options: Options) -> Sequence[Row]:
    """The pickle over the .safetensors, one row for each type. At SDXL's size this writes 20 GB of files."""
    rows = []
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            in_child("write", folder, options.size, dtype)  # whose memory must not count
            paths = {suffix: str(Path(folder) / f"FaithDiff{suffix}") for suffix in SUFFIXES}
            rounds = options.rounds or ROUNDS[options.size]
            loads = [{suffix: in_child("load", path) for suffix, path in paths.items()} for _ in range(rounds)]
            file_bytes = {suffix: Path(path).stat().st_size for suffix, path in paths.items()}
        seconds = {suffix: [one[suffix]["seconds"] for one in loads] for suffix in SUFFIXES}
        figures, told = memory_figures(loads, file_bytes)
        title = f"load, {options.size} {dtype}"
        rows.append(compared(title, seconds, *SUFFIXES, notes=f"wall time; copies by file size: {told}", figures=figures))
    return rows


def memory_figures(loads: list[dict[str, Any]], file_bytes: dict[str, int]) -> tuple[dict[str, float], str]:
    """Medians of the peaks, and in words how much of each file was copied."""
    figures: dict[str, float] = {}
    told = []
    for suffix, size in file_bytes.items():
        peaks = {name: statistics.median(one[suffix][name] for one in loads) for name in ("RssAnon", "VmRSS")}
        figures |= {
            f"{suffix} file_bytes": size,
            f"{suffix} copies_bytes": peaks["RssAnon"],
            f"{suffix} resident_bytes": peaks["VmRSS"],
        }
        told.append(f"{suffix} {peaks['RssAnon'] / size:.2f}")
    return figures, f"{', '.join(told)} ({max(file_bytes.values()) / 1e6:.0f} MB)"


def in_child(*arguments: str) -> Any:
    """What this file prints when it is run by itself."""
    out = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[-1])


def memory_bytes() -> dict[str, int]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {k: int(status[k].split()[0]) * 1024 for k in ("RssAnon", "RssFile", "VmRSS")}


class Peak(threading.Thread):
    """Largest values seen, polled every 5 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_bytes = memory_bytes()
        self.peak_bytes = dict(self.start_bytes)
        self.running = True

    def run(self):
        while self.running:
            for name, value in memory_bytes().items():
                self.peak_bytes[name] = max(self.peak_bytes[name], value)
            time.sleep(0.005)

    def extra_bytes(self) -> dict[str, int]:
        self.running = False
        self.join()
        return {k: self.peak_bytes[k] - self.start_bytes[k] for k in self.peak_bytes}


def load_file(path: str) -> dict[str, float]:
    """Seconds and peak growth of memory of one load, as the node makes it."""
    from comfyui_faithdiff.nodes.load_model import load

    peak = Peak()
    peak.start()
    began = time.perf_counter()
    kept = load(path)
    seconds = time.perf_counter() - began
    extra = peak.extra_bytes()
    assert kept
    return {"seconds": round(seconds, 3), **extra}


def write_files(folder: str, size: str, dtype_name: str) -> None:
    """The same made-up weights in the released layout, pickled, and in our full one."""
    import made_up
    import torch
    from comfyui_faithdiff.faithdiff_core.files.checkpoint import assemble_full, assemble_released
    from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors

    dtype = {"fp16": torch.float16, "fp32": torch.float32}[dtype_name]
    parts = made_up.parts_of(made_up.SIZES[size])
    for state in (parts.unet, parts.lq_encoder, parts.alignment):
        assert state is not None
        for name in state:
            state[name] = state[name].to(dtype)  # one at a time: never the whole in both types
    torch.save(assemble_released(parts), Path(folder) / "FaithDiff.bin")
    write_safetensors(Path(folder) / "FaithDiff.safetensors", assemble_full(parts), parts.metadata.to_header())


def main() -> None:
    host_process.enter("cpu")
    what, *arguments = sys.argv[1:]
    print(json.dumps({"load": load_file, "write": write_files}[what](*arguments)))


if __name__ == "__main__":
    main()
