"""A short run of the tiny FaithDiff with everything a real one has, in processes that can be killed at chosen moments.

Processes are forked from this one, which has imported everything: a start takes milliseconds. That is safe because only one
thread runs here (OMP_NUM_THREADS=1)."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from support.forks import start
from support.trainer import picture
from support.trainer_models import made_up_model, tiny, write_run

from training.cli import main
from training.common import tensor_files
from training.common.images import write_png
from training.data import manifest
from training.data.prepare import build
from training.loop import loop
from training.loop.run import Run
from training.model.networks import build_vae, network_spec
from training.weights.vae import write_vae

SAVE_EVERY = 3
SETTINGS = [
    *("network=tiny", "precision=fp32", "device=cpu", "threads=1", "workers=1", "tracker=none", "batch_size=2", "crop_px=32"),
    *(
        "target_size_px=32",
        "latent_crops=12",
        "steps=12",
        "warmup_steps=1",
        f"save_every={SAVE_EVERY}",
        "keep_checkpoints=2",
        "log_every=1",
    ),
    *("validate_every=4", "validation_pictures=1", "validation_sampling_steps=2", "trains=lq_encoder,alignment"),
]
"""Of nano-joint, its UNet frozen. Checkpoints after steps 3, 6, 9 and 12, validations after 4, 8 and 12: together once."""
PHASES = ("start-up", "steps", "checkpoint", "validation", "export")


def write_sources(folder: Path) -> None:
    """A manifest of six pictures, a VAE and a run to start from, all of the tiny network, with made-up weights."""
    for index in range(6):
        write_png(folder / f"p{index}.png", picture(index))
    records, _ = build([(f"p{index}", folder / f"p{index}.png") for index in range(6)], val_frac=0.0, min_side_px=32)
    manifest.write([*records[1:], replace(records[0], split="val")], folder / "manifest.jsonl")
    torch.manual_seed(0)
    vae = build_vae(network_spec("tiny")).eval()
    write_vae(folder / "vae.safetensors", vae, network_spec("tiny"), dtype=torch.float32, training={}, licence="MIT")
    config = tiny(stage="align", alignment_mode="pointwise", target_size_px=32)
    write_run(folder / "init", config, made_up_model(config))


def train_arguments(sources: Path, folder: Path) -> list[str]:
    """`train` for the run folder/run, going on where there is a checkpoint."""
    given = ["--data", sources / "manifest.jsonl", "--vae", sources / "vae.safetensors", "--init", sources / "init"]
    return ["train", "nano-joint", *map(str, given), "--out", str(folder / "run"), "--resume", "--set", *SETTINGS]


def export_arguments(folder: Path) -> list[str]:
    """`export` of the same run to folder/model.safetensors."""
    return ["export", str(folder / "run"), "--out", str(folder / "model.safetensors"), "--dtype", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a process is killed: `delay_s` after its start, or (0 = not so) by itself just before its `event`-th operation on a
    file, or when `written_frac` of its `save`-th archive is written."""

    delay_s: float = 0.0
    event: int = 0
    save: int = 0
    written_frac: float = 0.0


NEVER = Kill()


class Watched:
    """What a child tells its parent while it lives: its phase, and how many file operations and saves it has done."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 3 * 4)

    def __getitem__(self, place: int) -> int:
        return int.from_bytes(self._shared[4 * place : 4 * place + 4], "little")

    def __setitem__(self, place: int, value: int) -> None:
        self._shared[4 * place : 4 * place + 4] = value.to_bytes(4, "little")


PHASE, EVENTS, SAVES = range(3)


def forked(sources: Path, folder: Path, kill: Kill, more: Sequence[str] = ()) -> tuple[int, Watched]:
    """Train (with `more` settings) and export in a forked process.

    Returns the exit code (negative = killed by that signal) and what it had told."""
    told = Watched()

    def work() -> int:
        _watch(told, folder, kill)
        code = main([*train_arguments(sources, folder), *more])
        told[PHASE] = PHASES.index("export")
        return code or main(export_arguments(folder))

    child = start(work, folder / "printed.txt")
    if kill.delay_s:
        _kill_after(child, kill.delay_s)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def _kill_after(child: int, delay_s: float) -> None:
    """SIGKILL then, unless it has ended before; it stays a zombie, so that its number cannot be another's."""
    end_s = time.monotonic() + delay_s
    while (left_s := end_s - time.monotonic()) > 0:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(min(left_s, 0.02))
    os.kill(child, signal.SIGKILL)


def plain(sources: Path, folder: Path, delay_s: float) -> int:
    """`python -m training train` as users start it, killed after `delay_s` (inf = never). Returns the exit code."""
    with (folder / "printed.txt").open("a", encoding="utf-8") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *train_arguments(sources, folder)],
            cwd=Path(__file__).parents[2], stdout=printed, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            return process.wait(None if delay_s == float("inf") else delay_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _watch(told: Watched, folder: Path, kill: Kill) -> None:
    """Keep `told` up to date in this process, and die as `kill` says."""

    def in_phase(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            before, told[PHASE] = told[PHASE], PHASES.index(name)
            try:
                return function(*arguments, **named)
            finally:
                told[PHASE] = before

        return wrapped

    loop._steps = in_phase("steps", loop._steps)
    loop._validate = in_phase("validation", loop._validate)
    Run.save = in_phase("checkpoint", Run.save)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "os.rmdir"):
            return
        if str(folder) in str(arguments[0]) and not str(arguments[0]).endswith("printed.txt"):
            told[EVENTS] += 1
            if told[EVENTS] == kill.event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    save = torch.save

    def cut_off(value: Any, file: Any) -> None:
        told[SAVES] += 1
        if told[SAVES] == kill.save:
            length = file.seek(0, os.SEEK_END) or _length_of(save, value)
            file.seek(0)
            save(value, _Cut(file, int(kill.written_frac * length)))
        save(value, file)

    tensor_files.torch.save = cut_off


def _length_of(save: Callable[..., None], value: Any) -> int:
    with open(os.devnull, "wb") as nothing:
        counted = _Cut(nothing, sys.maxsize)
        save(value, counted)
    return counted.written


class _Cut:
    """A file whose process is killed when `limit` bytes are in it."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file, self._limit = file, limit
        self.written = 0

    def write(self, data: Any) -> int:
        """All of it, or what still fits before the end."""
        content = bytes(data)
        self._file.write(content[: self._limit - self.written])
        self.written += len(content)
        if self.written >= self._limit:
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(content)

    def flush(self) -> None:
        """What torch asks for at its end."""
        self._file.flush()
