"""How time and memory grow with the image: encoding and tiled sampling, from 512 px up, doubled until the largest side.

Each size runs in a process of its own, so that its peak is its own. The random image is encoded by FaithDiff Encode LQ
Features and sampled by FaithDiff Sampler, as the nodes do it: tiles of 512 px at half overlap, one step.

The exponent e is that of time ~ pixels ** e between one size and the next. Overlapping tiles cover a larger image more often (1,
9, 49, 225 tiles for 1, 4, 16, 64 times the pixels), so that sampling grows faster than the pixels even where every tile costs the
same; its exponent over the number of tiles is reported beside it.

    python benchmarks/run.py growth [--size nano|vega|sdxl] [--px 8192]
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import host_process
from rows import Options, Row, compared

SMALLEST_PX = 512
LARGEST_PX = 2048
"""Of a quick run: 4096 px take some minutes more."""
TILE_PX, OVERLAP_FRAC, STEPS = 512, 0.5, 1
PHASES = ("encode", "sample")


def growth(options: Options) -> Sequence[Row]:
    """For each size over the one of half its side: encoding, sampling, and both.

    Raises:
        ValueError: no two sizes up to the largest.
    """
    sides_px = [SMALLEST_PX]
    while 2 * sides_px[-1] <= (options.px or LARGEST_PX):
        sides_px.append(2 * sides_px[-1])
    if len(sides_px) == 1:
        raise ValueError(f"expected --px of {2 * SMALLEST_PX} or more for growth, got {options.px}")
    runs = {side: [one_size(options, side) for _ in range(options.rounds or 1)] for side in sides_px}
    rows = []
    for small, large in zip(sides_px, sides_px[1:], strict=False):
        rows += [grown(options, phase, runs, small, large) for phase in (*PHASES, "both")]
    return rows


def grown(options: Options, phase: str, runs: dict[int, list[dict[str, Any]]], small: int, large: int) -> Row:
    """One phase of one size over the same of the size of half its side."""
    phases = PHASES if phase == "both" else (phase,)
    seconds = {f"{side} px": [sum(one[name]["seconds"] for name in phases) for one in runs[side]] for side in (small, large)}
    ratio = statistics.median(seconds[f"{large} px"]) / statistics.median(seconds[f"{small} px"])
    peak_bytes = max(one[name]["peak_bytes"] for one in runs[large] for name in phases)
    tiles = [runs[side][0]["tiles"] for side in (small, large)]
    figures = {"exponent_px": math.log(ratio, 4), "peak_bytes": peak_bytes, "tiles": tiles[1]}
    told = f"time ~ pixels^{figures['exponent_px']:.3f}"
    if phase == "sample":
        figures["exponent_tiles"] = math.log(ratio, tiles[1] / tiles[0])
        told += f", ~ tiles^{figures['exponent_tiles']:.3f} ({tiles[0]} to {tiles[1]})"
    notes = f"{told}; {peak_bytes / 1e9:.2f} GB at {large} px"
    return compared(f"growth, {options.size}, {phase}", seconds, f"{large} px", f"{small} px", notes=notes, figures=figures)


def one_size(options: Options, side_px: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--size", options.size, "--px", str(side_px), "--device", options.device]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, such as VmRSS."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def measured(size: str, side_px: int, device: str) -> dict[str, Any]:
    """Seconds and peak growth of resident memory of each phase, over a process with everything loaded and used once."""
    import made_up
    from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX, Size
    from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
    from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
    from comfyui_faithdiff.nodes.tiles.run import TileSettings
    from support import tiny

    made = made_up.made_up(size)
    positive, negative = made_up.prompts(made.widths)
    clock = host_process.clock(device)

    def run(side_px: int) -> dict[str, Any]:
        image = tiny.image(side_px, side_px)
        gc.collect()
        before_bytes = status_bytes("VmRSS")
        figures: dict[str, Any] = {}

        def phase(name: str, act: Any) -> Any:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
            started = clock()
            result = act()
            figures[name] = {"seconds": clock() - started, "peak_bytes": status_bytes("VmHWM") - before_bytes}
            return result

        features, latent = phase("encode", lambda: FaithDiffEncodeLQ.execute(made.faithdiff, image, 0).args)
        settings = (0, STEPS, 5.0, "euler", "ddim_uniform", positive, negative, latent, 1.0, TILE_PX, OVERLAP_FRAC, 0)
        phase("sample", lambda: FaithDiffSampler.execute(made_up.aligned(made, features), *settings))
        return figures

    import torch

    with torch.inference_mode():  # as the host runs its nodes
        run(SMALLEST_PX // 2)  # everything is used once before it counts
        figures = run(side_px)
    settings = TileSettings(tile_size_px=TILE_PX, tile_overlap_frac=OVERLAP_FRAC, tile_batch=0)
    cells = Size(side_px // LATENT_CELL_PX, side_px // LATENT_CELL_PX)
    return {**figures, "tiles": len(settings.grid(cells, settings.tile_lat))}


def main() -> None:
    parser = argparse.ArgumentParser(description="One size, for growth(); prints its figures as JSON.")
    parser.add_argument("--size", required=True)
    parser.add_argument("--px", type=int, required=True)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    host_process.enter(arguments.device)
    print(json.dumps(measured(arguments.size, arguments.px, arguments.device)))


if __name__ == "__main__":
    main()
