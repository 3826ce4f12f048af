"""How much RAM loading takes, at SDXL size, with made-up weights: FaithDiff.bin and our .safetensors, fp16 and fp32.

Each load runs in a process of its own, in the host's process image, CPU only. Reported per file: its size, the growth of the
process's anonymous memory (copies) and of its whole resident memory (copies, and pages of the file that it has mapped), both
at their peak.

    COMFYUI_PATH=... python benchmarks/load_memory.py [--dtype fp16 fp32] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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


def child(path: str) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest  # noqa: F401 - puts the host and the pack where imports find them
    from comfyui_faithdiff.nodes.load_model import load

    peak = Peak()
    peak.start()
    began = time.perf_counter()
    kept = load(path)
    seconds = time.perf_counter() - began
    extra = peak.extra_bytes()
    assert kept
    print(json.dumps({"seconds": round(seconds, 2), **extra}))


def write_file(path: Path, dtype_name: str) -> None:
    """An SDXL-size file in the released layout; random values, made quickly, written tensor by tensor into one file."""
    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    import conftest  # noqa: F401
    from comfyui_faithdiff.faithdiff_core.checkpoint import assemble_full, split_state_dict
    from comfyui_faithdiff.faithdiff_core.storage import write_safetensors
    from support import by_rule

    dtype = {"fp16": torch.float16, "fp32": torch.float32}[dtype_name]
    state = {k: torch.empty(s, dtype=dtype).uniform_(-0.05, 0.05) for k, s in by_rule.released_shapes(by_rule.SDXL_UNET).items()}
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        parts = split_state_dict(state)
        write_safetensors(path, assemble_full(parts), parts.metadata.to_header())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", default=["fp16", "fp32"], choices=["fp16", "fp32"])
    parser.add_argument("--out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child)
    if args.write:
        return write_file(Path(args.write[0]), args.write[1])
    rows = []
    for dtype in args.dtype:
        for suffix in (".bin", ".safetensors"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"FaithDiff{suffix}"
                subprocess.run([sys.executable, __file__, "--write", str(path), dtype], check=True)  # its memory must not count
                size = path.stat().st_size
                out = subprocess.run(
                    [sys.executable, __file__, "--child", str(path)], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                row = {"file": f"{dtype} {suffix}", "file_bytes": size, **json.loads(out.splitlines()[-1])}
                row["copies_per_file_size"] = round(row["RssAnon"] / size, 3)
                row["resident_per_file_size"] = round(row["VmRSS"] / size, 3)
                rows.append(row)
                print(json.dumps(row), flush=True)
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
