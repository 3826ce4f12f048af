"""Several processes do what one does: the same gradients, rates and weights, whoever computes which part of the batch."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.compare import NETWORK, ONE_MODULE
from support.trainer import NEVER_MATTER
from support.trainer_processes import FSDP2, accelerate_launch, finish, start, wait_for
from support.trainer_toy import STRAYED, ToyTask, apart, first_gradient, strayed, toy_config, train_part
from support.trainer_toy_fidelity import SETTINGS, ToyFidelityTask
from support.trainer_toy_model import ModelTask

from training.config.schema import TrainConfig
from training.loop import checkpoints
from training.loop.task import Task

TOY = ["steps=4", "save_every=1", "keep_checkpoints=9", "lr=1e-3", "validate_every=4"]
MODEL = [*TOY, "lora_rank=2"]
FIDELITY = [*TOY, *SETTINGS]
KINDS: dict[str, tuple[Callable[[TrainConfig], Task], list[str]]] = {
    "toy": (ToyTask, TOY),
    "model": (ModelTask, MODEL),
    "fidelity": (ToyFidelityTask, FIDELITY),
}
PARTS = "micro_batch_size=1"
UNITS = ("--fsdp_transformer_layer_cls_to_wrap", "UNet2DConditionModel,LQEncoder,Linear")


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def finish_jobs(*jobs: list[Any], **options: Any) -> tuple[int, str]:
    """Run these jobs of trainer_toy_worker.py one after the other in the same processes; the exit code and what they printed."""
    return finish(start(*[argument for job in jobs for argument in ("--", *job)][1:], **options))


def train_here(kind: str, out: Path, stop_after: int | None = None) -> None:
    make, settings = KINDS[kind]
    config = toy_config(*settings)
    train_part(make(config), config, out, resume=True, stop_after=stop_after)


def kind_of(name: str) -> str:
    """Which run by one process this one is compared with."""
    return next((kind for kind in ("model", "fidelity") if kind in name), "toy")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs. toy, model, fidelity: by one process. fsdp, ddp and such: the same by two, with shards and without.
    handed-on: a step by one, by two with shards, by two without, and by one again. failing: one of two raises. A launch costs
    some ten seconds of imports in every process, so one makes all that take two."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        train_here(kind, folder / kind)
    train_here("toy", folder / "handed-on", stop_after=1)
    (folder / "file").write_bytes(b"")
    code, printed = finish_jobs(
        ["toy", folder / "fsdp", *TOY, PARTS],
        ["model", folder / "fsdp-model", *MODEL],
        ["fidelity", folder / "fsdp-fidelity", *FIDELITY],
        ["toy", folder / "handed-on", *TOY, "stop_after=2"],
        ["toy", folder / "8-bit", "optimiser=adamw8bit"],
        ["toy", folder / "ddp", *TOY, "sharded=no"],
        ["toy", folder / "ddp-parts", *TOY, PARTS, "sharded=no"],
        ["model", folder / "ddp-model", *MODEL, "sharded=no"],
        ["fidelity", folder / "ddp-fidelity", *FIDELITY, "sharded=no"],
        ["toy", folder / "handed-on", *TOY, "stop_after=3", "sharded=no"],
        ["toy", folder / "odd", "batch_size=3", "sharded=no"],
        ["toy", folder / "file" / "run", *TOY, "sharded=no"],
        ["failing", folder / "failing", "steps=6", "save_every=1", "sharded=no"],
        launcher=accelerate_launch(2, *FSDP2, *UNITS),
    )
    assert code != 0, printed
    (folder / "printed").write_text(printed, encoding="utf-8")
    train_here("toy", folder / "handed-on")
    return folder


def assert_same(one: Path, other: Path) -> None:
    """Gradients of the first step, losses and norms within rounding; rates equal; weights where it has brought the others."""
    assert apart(first_gradient(one), first_gradient(other)) <= NETWORK
    for row, other_row in zip(rows_of(one), rows_of(other), strict=True):
        assert (row["step"], row["lr"]) == (other_row["step"], other_row["lr"])
        for name in ("loss", "grad_norm"):
            assert row[name] == pytest.approx(other_row[name], rel=ONE_MODULE), name  # means of much: measured 4e-7
    last, other_last = rows_of(one)[-1], rows_of(other)[-1]
    figures = [name for name in last if name.startswith("validation/")]
    assert figures
    for name in figures:
        assert last[name] == pytest.approx(other_last[name], rel=ONE_MODULE), name
    make, settings = KINDS[one.name]
    start = make(toy_config(*settings)).module.state_dict()
    ends, other_ends = checkpoints.load(one), checkpoints.load(other)
    assert ends["step"] == other_ends["step"] == 4
    for part in ("model", "ema"):
        for name, share in strayed(ends[part], other_ends[part], start).items():
            assert share <= STRAYED or name in NEVER_MATTER, (name, share)


def rows_held(run_dir: Path) -> list[float]:
    """Crops that a process held at a time, a step: that there were two at all."""
    return [row["rows"] for row in rows_of(run_dir)]


@pytest.mark.parametrize(("name", "held"), [("fsdp", 1.0), ("fsdp-model", 2.0), ("fsdp-fidelity", 2.0)])
def test_two_processes_with_shards_equal_one(runs: Path, name: str, held: float) -> None:
    assert_same(runs / kind_of(name), runs / name)
    assert rows_held(runs / name) == [held] * 4


@pytest.mark.parametrize(("name", "held"), [("ddp", 2.0), ("ddp-parts", 1.0), ("ddp-model", 2.0), ("ddp-fidelity", 2.0)])
def test_two_processes_equal_one(runs: Path, name: str, held: float) -> None:
    assert_same(runs / kind_of(name), runs / name)
    assert rows_held(runs / name) == [held] * 4


def test_a_run_may_go_on_with_other_processes_and_without_shards(runs: Path) -> None:
    assert_same(runs / "toy", runs / "handed-on")
    assert rows_held(runs / "handed-on") == [4.0, 2.0, 2.0, 4.0]


def test_what_two_processes_cannot_do_is_refused(runs: Path) -> None:
    printed = (runs / "printed").read_text(encoding="utf-8")
    assert "expected batch_size to be a multiple of 2 (2 processes x 1 crops at a time), got 3, set it to 2 or 4" in printed
    assert printed.count("expected a run folder that can be written to, got ") == 1 and "Not a directory" in printed
    assert printed.count("expected a run folder to begin in, got none (see the main process's message)") == 1
    # Batches that cannot be shared; 8-bit moments in shards.
    assert not (runs / "odd").exists() and not (runs / "8-bit").exists()


def test_one_failing_process_ends_the_run(runs: Path) -> None:
    """It may not hang, as the other process waits for this one's gradients: `finish` fails for one that does."""
    assert "a process failed on purpose" in (runs / "printed").read_text(encoding="utf-8")
    assert checkpoints.load(runs / "failing")["step"] == 2


@pytest.mark.long
def test_sigterm_to_the_launcher_stops_all_after_the_same_step(tmp_path: Path) -> None:
    process = start("slow", tmp_path, "steps=100000", "save_every=100000", launcher=accelerate_launch(2))
    wait_for(lambda: (tmp_path / "log.jsonl").is_file() or process.poll() is not None)
    os.kill(process.pid, signal.SIGTERM)
    code, printed = finish(process)
    step = checkpoints.load(tmp_path)["step"]
    assert code != 0 and printed.count(f"stopped by SIGTERM and saved after {step} steps") == 2
