"""The two ways of stepping that the benchmark holds against each other do what it says of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import run  # noqa: E402
from rows import Row, compared  # noqa: E402
from train_official import OFFICIAL, OURS  # noqa: E402
from train_step import Stage, compare, config_of  # noqa: E402


@pytest.fixture
def stage() -> Stage:
    return Stage(replace(config_of("nano", "align"), crop_px=64, batch_size=1))


def calls_per_step(stage: Stage, module: torch.nn.Module, habits: object) -> int:
    """How often a module runs in one step."""
    seen: list[int] = []
    handle = module.register_forward_hook(lambda *_: seen.append(1))
    stage.step(habits)  # type: ignore[arg-type]
    handle.remove()
    return len(seen)


def with_gradient(stage: Stage) -> set[str]:
    return {name.partition(".")[0] for name, parameter in stage.model.named_parameters() if parameter.grad is not None}


def test_ours_computes_nothing_for_what_is_frozen(stage: Stage) -> None:
    before = {name: value.clone() for name, value in stage.model.named_parameters()}
    assert calls_per_step(stage, stage.model.lq_encoder.down_blocks[0].resnets[0], OURS) == 1
    assert calls_per_step(stage, stage.texts, OURS) == 0
    assert with_gradient(stage) == set()
    changed = {name.partition(".")[0] for name, value in stage.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"alignment"}


@pytest.mark.long
def test_the_official_way_keeps_gradients_and_computes_twice(stage: Stage) -> None:
    assert calls_per_step(stage, stage.model.lq_encoder.down_blocks[0].resnets[0], OFFICIAL) == 2
    assert calls_per_step(stage, stage.texts, OFFICIAL) == 1
    assert with_gradient(stage) == {"unet", "lq_encoder"}
    weight = stage.model.unet.conv_in.weight
    assert weight.grad is not None
    first = weight.grad.clone()
    stage.step(OFFICIAL)
    assert not torch.equal(weight.grad, first), "kept gradients are added up"
    assert all("forward" not in vars(block) for block in stage.model.lq_encoder.modules())


def test_rows_hold_the_ratio_of_each_round() -> None:
    config = replace(config_of("nano", "joint"), crop_px=32, batch_size=1)
    (row,) = compare(config, "stage 2", {"official": OFFICIAL}, rounds=2)
    assert row.name == "stage 2: official / ours"
    assert 0 < row.ratio_min <= row.ratio_median <= row.ratio_max
    assert row.a_seconds > 0
    assert row.b_seconds > 0
    head, line = run.table([vars(row)]).splitlines()
    assert head.startswith("comparison")
    assert line.startswith("stage 2: official / ours")


def test_what_needs_a_host_says_so_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    result = run.in_child("step", [])
    assert result["skipped"][0]["benchmark"] == "step"
    assert "COMFYUI_PATH" in result["skipped"][0]["reason"]


def test_one_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in a process of its own; one names no host that exists, the other has none of its rows missing."""
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "no-host"))
    real = run.in_child
    fine = {"rows": [{**vars(some_row()), "benchmark": "tiles"}]}
    monkeypatch.setattr(run, "in_child", lambda name, told: real(name, told) if name == "step" else fine)
    out = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "step", "tiles", "--out", str(out)])
    assert run.main() == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [entry["benchmark"] for entry in report["failed"]] == ["step"]
    assert [row["benchmark"] for row in report["rows"]] == ["tiles"]
    assert "failed: step: exit code" in capsys.readouterr().out


def some_row() -> Row:
    return compared("what", {"a": [1.0], "b": [2.0]}, "a", "b", notes="")
