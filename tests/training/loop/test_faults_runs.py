"""Processes, threads and pictures that fail while a run goes on: kills, lost ranks, signals, two runs at once, missing shards."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from support.trainer_processes import finish
from support.trainer_toy import ToyTask, equal, toy_config

from training.common import files
from training.common.stopping import LostProcessError
from training.config.schema import TrainConfig
from training.loop import checkpoints, loop, run_lock
from training.loop.engine import Engine
from training.loop.task import Batch, Metrics

Quick = Callable[..., TrainConfig]
SHORT = Path(__file__).parents[2] / "soak" / "training_short.py"


def trained(config: TrainConfig, run_dir: Path) -> dict[str, Any]:
    """The weights of an uninterrupted toy run."""
    loop.train(ToyTask(config), config, run_dir, extra={}, resume=False)
    return checkpoints.load(run_dir)["trained"]


@pytest.mark.long
def test_killed_processes_cost_the_steps_since_the_last_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    """What `make soak` does 50 times: kills at random moments of a tiny real run, and the loss of one of two processes."""
    command = [sys.executable, SHORT, tmp_path / "work"]
    code, printed = finish(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    )
    assert code == 0, printed


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    config = toy_config("steps=4", "save_every=1")
    refused = []

    class Second(ToyTask):
        def batch(self, step: int, places: range) -> Batch:
            if step == 2:
                half = tmp_path / "run" / checkpoints.FOLDER / ".step-00000003.part-12345678.pt"
                half.write_bytes(b"what the first one is writing")
                with pytest.raises(ValueError, match="expected a free run folder, got .*, in use by process") as error:
                    loop.train(ToyTask(config), config, tmp_path / "run", extra={}, resume=True)
                refused.append(str(error.value))
                assert half.is_file()
                half.unlink()
            return super().batch(step, places)

    loop.train(Second(config), config, tmp_path / "run", extra={}, resume=False)
    assert f"process {os.getpid()} on" in refused[0] and refused[0].endswith("wait for its end or choose another --out")
    assert equal(checkpoints.load(tmp_path / "run")["trained"], trained(config, tmp_path / "whole"))


def test_disks_without_locks_are_trained_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((files, "lock_open_file"), (run_lock, "lock_descriptor")):
        monkeypatch.setattr(module, name, Mock(side_effect=OSError(errno.ENOLCK, "no locks")))
    config = toy_config("steps=2")
    assert loop.train(ToyTask(config), config, tmp_path, extra={}, resume=False)["step"] == 2


def test_processes_that_found_different_checkpoints_do_not_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = Engine(toy_config(), tmp_path, tracker=None)
    engine.same_everywhere(4, "the step")
    others = 2.0  # the other process has found step 2 only
    monkeypatch.setattr(engine, "mean", lambda values: [(values[0] + others) / 2])
    with pytest.raises(ValueError, match="expected the step to be the same in every process, got 4 in process 0 and others"):
        engine.same_everywhere(4, "the step")


def test_only_a_lost_process_is_told_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = Engine(toy_config(), tmp_path, tracker=None)
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.raises(RuntimeError, match="^.gloo"), engine.naming_lost_processes():
        raise lost  # a single process has none to lose
    monkeypatch.setattr(engine, "processes", 2)
    told = "process 0 has lost another process of this run .*--resume"
    with pytest.raises(LostProcessError, match=told), engine.naming_lost_processes():
        raise lost
    with pytest.raises(RuntimeError, match="^shapes differ"), engine.naming_lost_processes():
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("place", ["loss", "prefetch", "validate", "save"])
def test_sigterm_in_the_middle_of_anything_loses_nothing(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def once(step: int) -> None:
        if step == 2 and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    class Terminated(ToyTask):
        step = 0

        def batch(self, step: int, places: range) -> Batch:
            self.step = step
            return super().batch(step, places)

        def prefetch(self, step: int, places: range) -> None:
            once(step if place == "prefetch" else -1)

        def loss(self, module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
            once(self.step if place == "loss" else -1)
            return super().loss(module, batch)

        def validate(self, step: int, folder: Path) -> dict[str, float]:
            once(step if place == "validate" else -1)
            return super().validate(step, folder)

    save = checkpoints.save
    if place == "save":
        monkeypatch.setattr(
            checkpoints, "save", lambda run_dir, state, keep: (once(state["step"]), save(run_dir, state, keep=keep))
        )
    config = toy_config("steps=5", "save_every=2", "validate_every=2")
    with pytest.raises(loop.Interrupted, match="stopped by SIGTERM and saved after") as stop:
        loop.train(Terminated(config), config, tmp_path / "run", extra={}, resume=False)
    assert stop.value.exit_code == 143 and checkpoints.load(tmp_path / "run")["step"] in (2, 3)
    monkeypatch.undo()
    loop.train(ToyTask(config), config, tmp_path / "run", extra={}, resume=True)
    assert equal(checkpoints.load(tmp_path / "run")["trained"], trained(config, tmp_path / "whole"))
