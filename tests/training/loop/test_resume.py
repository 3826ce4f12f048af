"""Going on: a killed run ends as the uninterrupted one, bit for bit; damaged checkpoints are passed over."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainer_processes import finish, start, wait_for
from support.trainer_toy import ToyTask, equal, toy_config, train_part

from training.batches.store import ImageStore
from training.config.schema import TrainConfig
from training.data import manifest
from training.loop import checkpoints, loop
from training.loop.progress import drop_rows_after
from training.loop.task import Batch
from training.tasks.vae import VAETask

Quick = Callable[..., TrainConfig]
STATE = ("step", "trained", "model", "optimiser", "ema", "extra", "config")


def steps_logged(run_dir: Path) -> list[int]:
    path = run_dir / "log.jsonl"
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def same_end(one: Path, other: Path) -> None:
    first, second = checkpoints.load(one), checkpoints.load(other)
    for name in STATE:
        assert equal(first[name], second[name]), name


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as a process of `processes.start` has: another count may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_ends_as_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    settings = ["steps=20", "save_every=5", "late_from_frac=0.6", "late_crop_px=64", "late_batch_size=2"]
    # After the checkpoint of step 10, with steps beyond it done; it waits there, so that no slow machine comes too late.
    process = start("stuck", tmp_path / "killed", *settings)
    wait_for(lambda: steps_logged(tmp_path / "killed")[-1:] == [12] or process.poll() is not None)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert checkpoints.load(tmp_path / "killed")["step"] == 10 and steps_logged(tmp_path / "killed")[-1] == 12
    config = toy_config(*settings)
    loop.train(ToyTask(config), config, tmp_path / "whole", extra={}, resume=False)
    loop.train(ToyTask(config), config, tmp_path / "killed", extra={}, resume=True)
    same_end(tmp_path / "whole", tmp_path / "killed")
    assert checkpoints.load(tmp_path / "killed")["step"] == 20
    assert steps_logged(tmp_path / "killed") == list(range(1, 21))
    state = checkpoints.load(tmp_path / "whole")
    assert not equal(state["trained"], state["ema"]), "the average must differ from the last weights here"


def test_the_vae_stage_resumes_bit_for_bit(quick: Quick, data: Path, tmp_path: Path) -> None:
    config = quick("nano-vae", "steps=5", "device=cpu", "tracker=none", "late_from_frac=0.5", "late_crop_px=64")
    store = ImageStore(manifest.read(data), short_side_px=96, cache_bytes=10**8)
    for name, stops in (("whole", [5]), ("parts", [3, 5])):
        for stop in stops:
            train_part(VAETask(config, store), config, tmp_path / name, resume=True, stop_after=stop)
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_draws_from_torchs_own_random_state_resume_too(tmp_path: Path) -> None:
    class Drawing(ToyTask):
        def batch(self, step: int, places: range) -> Batch:
            batch = super().batch(step, places)
            return {"x": batch["x"] + torch.randn_like(batch["x"])}

    config = toy_config("steps=4")
    loop.train(Drawing(config), config, tmp_path / "whole", extra={}, resume=False)
    train_part(Drawing(config), config, tmp_path / "parts", resume=False, stop_after=3)
    torch.manual_seed(12345)  # whatever happened in between
    loop.train(Drawing(config), config, tmp_path / "parts", extra={}, resume=True)
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_resumes_to_nothing_and_more_steps_go_on(tmp_path: Path) -> None:
    config = toy_config("steps=2")
    loop.train(ToyTask(config), config, tmp_path, extra={}, resume=False)
    before = [path.stat().st_mtime_ns for path in checkpoints.saved_in(tmp_path)]
    assert loop.train(ToyTask(config), config, tmp_path, extra={}, resume=True) == {}
    assert [path.stat().st_mtime_ns for path in checkpoints.saved_in(tmp_path)] == before
    longer = toy_config("steps=4")
    loop.train(ToyTask(longer), longer, tmp_path, extra={}, resume=True)
    assert checkpoints.load(tmp_path)["step"] == 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def replace(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


@pytest.mark.parametrize("damage", [cut, flip, replace, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, damage: Callable[[Path], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    config = toy_config("save_every=2", "keep_checkpoints=3")
    train_part(ToyTask(config), config, tmp_path, resume=False, stop_after=4)
    # Copies: what `load` returns is read from the file as it is used, and the file is damaged under it here.
    whole = {name: value.clone() for name, value in checkpoints.load(tmp_path)["trained"].items()}
    older, newest = checkpoints.saved_in(tmp_path)
    damage(newest)
    capfd.readouterr()
    assert checkpoints.load(tmp_path)["step"] == 2
    assert capfd.readouterr().err.count("step-00000004.pt is damaged") == 1
    train_part(ToyTask(config), config, tmp_path, resume=True, stop_after=4)
    assert equal(checkpoints.load(tmp_path)["trained"], whole)
    damage(older)
    damage(newest)
    with pytest.raises(ValueError, match="expected a whole checkpoint, got only damaged ones"):
        checkpoints.load(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a checkpoint, got none in .*, train this run first"):
        checkpoints.load(tmp_path)
    config = toy_config("steps=1")
    loop.train(ToyTask(config), config, tmp_path, extra={}, resume=False)
    (tmp_path / checkpoints.FROZEN).write_bytes(b"damage")
    with pytest.raises(ValueError, match="expected the run's frozen weights"):
        checkpoints.load(tmp_path)


def test_the_log_loses_rows_beyond_the_checkpoint_and_half_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2}\n{"step": 3}\n{"st', encoding="utf-8")
    drop_rows_after(path, 2)
    assert path.read_text(encoding="utf-8") == '{"step": 1, "loss": 1.0}\n{"step": 2}\n'
