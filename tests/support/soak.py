"""Many queued runs on one server, and what they leave: resident memory, open files, threads, temporary files."""

from __future__ import annotations

import random
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from comfyui_faithdiff.faithdiff_core.color_fix import METHODS
from hostrun.client import Client
from hostrun.server import HostServer

from .workflows import resized

MODEL = "nano_faithdiff.safetensors"
SETTLED_AFTER = 10
"""Runs after which nothing may grow any more: by then every size class of the allocator, thread pool and import has been used."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of the server's process after one run. `temporary_files`: below its temp folder and the system's (TMPDIR)."""

    resident_bytes: int
    open_files: int
    threads: int
    temporary_files: int


def copies_of_the_model(demo: Path, folder: Path, count: int) -> list[str]:
    """Names of `count` copies of the nano model in `folder`: to the host that many models, which take turns in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"soak_{number}.safetensors" for number in range(count)]
    for name in names:
        shutil.copyfile(demo / MODEL, folder / name)
    return names


SAME = ("size", "weights", "report")


def varied(
    demo: dict[str, Any], models: Sequence[str], *, seed: int, largest_px: int, same: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """The demo's prompt again and again: each time another seed, size, model, tiling, colour fix, and now and then the report.

    `same`: what of SAME stays as it is in the first prompt; the report is left out."""
    chosen = random.Random(seed)
    size_px = None
    by_class = {node["class_type"]: key for key, node in demo.items()}
    for number in range(10**9):
        drawn_px = [8 * chosen.randint(6, largest_px // 8) + chosen.randint(0, 7) for _ in range(2)]
        size_px = size_px if size_px and "size" in same else drawn_px
        prompt = resized(demo, *size_px)

        def inputs(class_type: str, prompt: dict[str, Any] = prompt) -> dict[str, Any]:
            return prompt[by_class[class_type]]["inputs"]

        weights = models[number % len(models)], chosen.choice(["default", "default", "fp8_e4m3fn"])
        model_name, weight_dtype = (models[0], "default") if "weights" in same else weights
        inputs("FaithDiffLoadModel").update(model_name=model_name, weight_dtype=weight_dtype)
        inputs("FaithDiffEncodeLQ")["tile_size"] = chosen.choice([0, 128])
        inputs("FaithDiffSampler").update(
            seed=number, steps=2, tile_size=chosen.choice([0, 64, 1024]), tile_batch=chosen.choice([0, 1, 3])
        )
        inputs("FaithDiffColorFix")["method"] = chosen.choice(list(METHODS))
        if chosen.random() < 0.25 and "report" not in same:
            images = {"image": [by_class["FaithDiffColorFix"], 0], "reference": [by_class["ImageScaleBy"], 0]}
            prompt["report"] = {"class_type": "FaithDiffReport", "inputs": {**images, "map": "consistency", "scale": 0.0}}
            prompt["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["report", 1]}}
        yield prompt


def read(server: HostServer, system_temp: Path | None) -> Reading:
    """What the server's process holds now. Previews are the host's to keep (temp/ComfyUI_temp_*): they do not count."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    folders = (server.options.base / "temp", *([] if system_temp is None else [system_temp]))
    return Reading(
        resident_bytes=process.memory_info().rss,
        open_files=process.num_fds(),
        threads=process.num_threads(),
        temporary_files=sum(
            path.is_file() and not path.name.startswith("ComfyUI_temp_")
            for folder in folders
            if folder.is_dir()
            for path in folder.rglob("*")
        ),
    )


def run_all(
    client: Client,
    server: HostServer,
    prompts: Iterator[dict[str, Any]],
    runs: int,
    system_temp: Path | None,
    *,
    forget: bool = False,
) -> list[Reading]:
    """A reading after each of `runs` prompts, all of which have to end well. `forget`: the host drops its history each time."""
    readings = []
    for _ in range(runs):
        client.run(next(prompts))
        if forget:
            client.post("/history", {"clear": True})
        readings.append(read(server, system_temp))
    return readings


def slope_per_run(values: Sequence[float]) -> float:
    """Least-squares slope of values over their index."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((index - middle) ** 2 for index in range(len(values)))
    return sum((index - middle) * (value - mean) for index, value in enumerate(values)) / spread
