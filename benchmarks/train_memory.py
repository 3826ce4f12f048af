"""What a training step really takes on a CPU, beside what `training.stages.memory.estimate` says, on made-up weights and batches.

The trainer's own loop runs three optimiser steps, twice, each time in a process of its own:
* allocator: the largest sum of bytes that torch's allocator had given out, from the profiler's record of every allocation;
* resident: growth of the process's resident memory at its peak (VmHWM, reset before), over what it was with everything imported
  and one small step done. Includes the libraries' own buffers, but not what the C library would keep of freed memory: it is told
  to give blocks of 64 kB and more back at once.

    python benchmarks/train_memory.py [--set network=vega --set stage=align ...] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from training.config.overrides import override  # noqa: E402
from training.config.schema import TrainConfig  # noqa: E402
from training.loop import loop  # noqa: E402
from training.model.faithdiff import build_model  # noqa: E402
from training.stages import memory  # noqa: E402
from training.stages.without_content import empty_batch  # noqa: E402
from training.tasks.diffusion import DiffusionTask  # noqa: E402

STEPS = 3
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc's mallopt(3): blocks of this size and more have pages of their own, which go back to the system when they are freed."""
BASE = TrainConfig(
    recipe="train-memory", stage="joint", steps=STEPS, batch_size=2, lr=1e-5, latent_crops=8, device="cpu", tracker="none"
)


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, such as VmRSS."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


class MadeUp(DiffusionTask):
    """A diffusion stage whose batches hold the same values at every place; `at_last_step` is called before the last one's."""

    def __init__(self, config: TrainConfig, at_last_step: Any) -> None:
        super().__init__(config, cast(Any, None), build_model(config), device=torch.device("cpu"), vae=None, texts=None)
        self.at_last_step = at_last_step

    def prefetch(self, step: int, places: range) -> None:
        pass

    def batch(self, step: int, places: range) -> dict[str, torch.Tensor]:
        if step == STEPS - 1:
            self.at_last_step()
        batch = empty_batch(self.config, len(places), self.config.crop_px)
        return {name: torch.full_like(value, 0.5) for name, value in batch.items()}


def run(config: TrainConfig, at_last_step: Any = lambda: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loop.train(MadeUp(config, at_last_step), config, Path(folder) / "run", extra={}, resume=False)


def resident_bytes(config: TrainConfig) -> int:
    """Peak growth of the resident memory."""
    run(replace(config, network="tiny", crop_px=32, batch_size=1, micro_batch_size=0))
    gc.collect()
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    peak: list[int] = []
    run(config, lambda: peak.append(status_bytes("VmHWM")))
    return max(peak) - before


def allocator_bytes(config: TrainConfig) -> int:
    """Peak of what the allocator had given out."""
    return allocated_by(lambda: run(config))


def allocated_by(work: Callable[[], object]) -> int:
    """The same of anything that is done."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    results = profile.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    changes = sorted((event for event in results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns())
    now = peak = 0
    for change in changes:
        now += change.nbytes()
        peak = max(peak, now)
    return peak


MEASURES = {"allocator": allocator_bytes, "resident": resident_bytes}


def measure(settings: Sequence[str], measures: Sequence[str] = tuple(MEASURES)) -> dict[str, Any]:
    """Estimate, measured bytes and their ratios for `BASE` changed by `settings` ("key=value")."""
    estimate = memory.estimate(override(BASE, list(settings)), on_gpu=False)
    row: dict[str, Any] = {"settings": list(settings), "phase": estimate.phase, "estimate_bytes": estimate.total_bytes}
    for name in measures:
        command = [sys.executable, __file__, "--child", name, *(word for text in settings for word in ("--set", text))]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | GIVE_BACK).stdout
        row[f"{name}_bytes"] = int(out.split()[-1])
        row[f"estimate_per_{name}"] = round(row["estimate_bytes"] / row[f"{name}_bytes"], 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the run")
    parser.add_argument("--out", help="write the figures here, too")
    parser.add_argument("--child", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(MEASURES[arguments.child](override(BASE, arguments.set)))
        return
    text = json.dumps(measure(arguments.set), indent=2)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
