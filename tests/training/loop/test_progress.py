"""What a run reports on its way: validation under the averaged weights, rows, trackers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainer import picture
from support.trainer_toy import ToyTask, toy_config, train_part
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.common.images import write_png
from training.loop import checkpoints, loop
from training.optim.ema import EMA


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def train(run_dir: Path, *settings: str, resume: bool = False, stop_after: int | None = None) -> None:
    config = toy_config(*settings)
    train_part(ToyTask(config), config, run_dir, resume=resume, stop_after=stop_after)


def test_validation_sees_the_average_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    class Watching(ToyTask):
        def validate(self, step: int, folder: Path) -> dict[str, float]:
            seen[step] = {name: value.clone() for name, value in self.module.state_dict().items()}
            write_png(folder / f"step-{step:08d}.png", picture(step))
            return super().validate(step, folder)

    config = toy_config("validate_every=4", "tracker=tensorboard", "log_every=3")
    figures = loop.train(Watching(config), config, tmp_path / "run", extra={}, resume=False)
    train(tmp_path / "without")
    state, without = checkpoints.load(tmp_path / "run"), checkpoints.load(tmp_path / "without")
    assert list(seen) == [4, 6]
    for name, value in state["ema"].items():
        assert torch.equal(seen[6][name], value) and not torch.equal(state["trained"][name], value)
        assert torch.equal(state["trained"][name], without["trained"][name])
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [3, 4, 6]
    assert ["validation/features" in row for row in rows] == [False, True, True] and rows[-1] == figures
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("validation/features")] == [4, 6]
    assert [event.step for event in events.Scalars("loss")] == [3, 4, 6]
    assert [event.step for event in events.Images("validation/0")] == [4, 6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_stands_in_and_the_weights_return_bit_for_bit(dtype: torch.dtype) -> None:
    parameters = {"w": torch.nn.Parameter(torch.randn(50).to(dtype))}
    ema = EMA(parameters, max_decay=0.9, on_cpu=True)
    with torch.no_grad():
        parameters["w"].mul_(3.0)
    ema.update(parameters, 0)
    before, shadow = parameters["w"].detach().clone(), ema.shadow["w"].clone()
    with pytest.raises(RuntimeError, match="inside"), ema.in_place(parameters):
        assert torch.equal(parameters["w"].detach(), shadow.to(dtype))
        raise RuntimeError("inside")
    assert torch.equal(parameters["w"].detach(), before) and torch.equal(ema.shadow["w"], shadow)


def test_without_an_average_the_run_has_none(tmp_path: Path) -> None:
    train(tmp_path, "ema_decay=0", "validate_every=3", stop_after=3)
    train(tmp_path, "ema_decay=0", "validate_every=3", resume=True)
    assert checkpoints.load(tmp_path)["ema"] == {}
    assert "validation/features" in rows_of(tmp_path)[-1]


def test_a_missing_tracker_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.loop.progress.get_available_trackers", list)
    train(tmp_path, "tracker=tensorboard", stop_after=2)
    assert capfd.readouterr().err.count("warning: tracker tensorboard is not installed, only log.jsonl is written") == 1
    assert len(rows_of(tmp_path)) == 2
    with pytest.raises(ValueError, match="expected tracker to be .* got 'tensorbord'"):
        train(tmp_path, "tracker=tensorbord", resume=True)
