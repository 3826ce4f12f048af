"""The loop in one process: what trains, how a batch is worked through, what is logged, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.compare import NETWORK, ONE_MODULE, assert_close
from support.trainer_toy import STRAYED, ToyTask, apart, equal, first_gradient, strayed, toy_config, train_part

from training.batches.store import ImageStore
from training.config.schema import TrainConfig
from training.data import manifest
from training.loop import checkpoints, loop
from training.loop.schedule import check_batches, lr_factor, micro_batches
from training.loop.task import Batch, Metrics
from training.tasks.vae import VAETask

Quick = Callable[..., TrainConfig]


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def train(run_dir: Path, *settings: str, resume: bool = False, stop_after: int | None = None) -> ToyTask:
    config = toy_config(*settings)
    task = ToyTask(config)
    train_part(task, config, run_dir, extra={"data_digest": "x"}, resume=resume, stop_after=stop_after)
    return task


def vae_task(config: TrainConfig, data: Path) -> VAETask:
    return VAETask(config, ImageStore(manifest.read(data), short_side_px=96, cache_bytes=10**8))


def test_vae_loss_falls_on_one_batch(quick: Quick, data: Path, tmp_path: Path) -> None:
    class OneBatch(VAETask):
        def batch(self, step: int, places: range) -> Batch:
            return super().batch(0, places)

    config = quick("nano-vae", "steps=25", "lr=1e-3", "log_every=5", "tracker=none", "device=cpu")
    loop.train(OneBatch(config, vae_task(config, data).store), config, tmp_path, extra={}, resume=False)
    rows = rows_of(tmp_path)
    assert rows[-1]["step"] == 25
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]  # measured: 0.21
    assert {"grad_norm", "images_per_s", "lr", "memory_gb", "psnr_db"} <= set(rows[0])


def test_a_vae_run_is_an_autoencoders_state_dict(quick: Quick, data: Path, tmp_path: Path) -> None:
    from training.model.networks import build_vae, network_spec

    config = quick("nano-vae", "steps=1", "tracker=none", "device=cpu")
    task = vae_task(config, data)
    vae = build_vae(network_spec("tiny"))
    vae.load_state_dict(task.module.state_dict())
    batch = task.batch(0, range(1))
    with torch.no_grad():
        mean, _, got = task.module(batch["image"], torch.zeros(1, 4, 4, 4))
        assert_close(got, vae.decode(mean, return_dict=False)[0], NETWORK)  # type: ignore[arg-type]
    loop.train(task, config, tmp_path, extra={}, resume=False)
    vae.load_state_dict(checkpoints.load(tmp_path)["model"])


def test_frozen_weights_are_written_once_and_keep_their_type(tmp_path: Path) -> None:
    task = train(tmp_path, stop_after=2)
    written = (tmp_path / checkpoints.FROZEN).stat().st_mtime_ns
    train(tmp_path, resume=True)
    assert (tmp_path / checkpoints.FROZEN).stat().st_mtime_ns == written
    state, fresh = checkpoints.load(tmp_path), ToyTask(toy_config()).module.state_dict()
    assert set(state["model"]) == set(fresh) and set(state["trained"]) == set(state["ema"]) == set(state["optimiser"])
    assert state["model"]["coarse.weight"].dtype == torch.bfloat16
    for name, value in fresh.items():
        assert torch.equal(state["model"][name], value) == (name not in state["trained"]), name
    assert [parameter.grad for parameter in task.module.fixed.parameters()] == [None, None]


def test_learning_rates_follow_the_schedule_and_the_groups_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    original = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: object, **options: object) -> object:
        seen.append([group["lr"] for group in self.param_groups])
        return original(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    train(tmp_path, "steps=5", "warmup_steps=2", "lr=0.02")
    wanted = [0.02 * lr_factor(step, steps=5, warmup_steps=2) for step in range(5)]
    assert seen == [[lr, 0.1 * lr] for lr in wanted]
    assert [row["lr"] for row in rows_of(tmp_path)] == wanted


def test_every_place_is_asked_for_once_and_announced_before(tmp_path: Path) -> None:
    task = train(tmp_path, "steps=3", "micro_batch_size=2", "late_from_frac=0.6", "late_batch_size=6", "late_crop_px=64")
    wanted = [(0, range(0, 2)), (0, range(2, 4)), (1, range(0, 2)), (1, range(2, 4))]
    wanted += [(2, range(0, 2)), (2, range(2, 4)), (2, range(4, 6))]
    assert task.draws == wanted
    assert task.announced == wanted[1:]


def test_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    for name, settings in (("whole", []), ("parts", ["micro_batch_size=1"])):
        train(tmp_path / name, "steps=3", "save_every=1", "keep_checkpoints=3", "clip_norm=0", *settings)
    assert apart(*(first_gradient(tmp_path / name) for name in ("whole", "parts"))) <= ONE_MODULE
    trained = [checkpoints.load(tmp_path / name)["trained"] for name in ("whole", "parts")]
    for name, share in strayed(*trained, ToyTask(toy_config()).module.state_dict()).items():
        assert share <= STRAYED, (name, share)
    for one, other in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts"), strict=True):
        for name in ("loss", "l1", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=ONE_MODULE), name
        assert (one["rows"], other["rows"]) == (4.0, 1.0)


@pytest.mark.parametrize(("clip_norm", "wanted"), [("0.01", 0.01), ("0", None)])
def test_gradients_are_clipped_and_the_norm_is_logged(
    tmp_path: Path, clip_norm: str, wanted: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    original = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: object, **options: object) -> object:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(torch.stack([grad.norm() for grad in grads]).norm().item())
        return original(self, *args, **options)  # type: ignore[arg-type]

    class Loud(ToyTask):
        def loss(self, module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
            loss, figures = super().loss(module, batch)
            return 1e3 * loss, figures

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    config = toy_config("steps=1", f"clip_norm={clip_norm}")
    norm = loop.train(Loud(config), config, tmp_path, extra={}, resume=False)["grad_norm"]
    assert norm > 100
    assert seen == [pytest.approx(wanted if wanted else norm, rel=1e-3)]


def test_fused_backward_trains_resumes_and_logs_its_norm(tmp_path: Path) -> None:
    train(tmp_path / "plain", "clip_norm=0")
    train(tmp_path / "fused", "clip_norm=0", "fused_backward=true", stop_after=3)
    train(tmp_path / "fused", "clip_norm=0", "fused_backward=true", resume=True)
    plain, fused = checkpoints.load(tmp_path / "plain"), checkpoints.load(tmp_path / "fused")
    for name in plain["trained"]:
        assert torch.equal(plain["trained"][name], fused["trained"][name]), name
    norms = [rows_of(tmp_path / name)[-1]["grad_norm"] for name in ("fused", "plain")]
    assert norms[0] == pytest.approx(norms[1], rel=ONE_MODULE)


def test_8_bit_moments_resume_bit_for_bit_and_read_without_torchao(tmp_path: Path) -> None:
    class Wide(ToyTask):
        def __init__(self, config: TrainConfig) -> None:
            super().__init__(config)
            torch.manual_seed(1)
            self.module.last = torch.nn.Sequential(torch.nn.Linear(7, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 3))

    config = toy_config("optimiser=adamw8bit", "steps=4")
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for stop in stops:
            train_part(Wide(config), config, tmp_path / name, resume=True, stop_after=stop)
    whole, parts = (checkpoints.load(tmp_path / name) for name in ("whole", "parts"))
    assert equal(whole["optimiser"], parts["optimiser"]) and equal(whole["trained"], parts["trained"])
    assert any("codes" in values["exp_avg"] for values in whole["optimiser"].values() if isinstance(values["exp_avg"], dict))
    code = "import sys, torch; torch.load(sys.argv[1], weights_only=True); assert 'torchao' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(checkpoints.saved_in(tmp_path / "whole")[-1])], check=True)


def test_a_loss_that_reaches_no_parameter_is_our_mistake(tmp_path: Path) -> None:
    class Detached(ToyTask):
        def loss(self, module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
            return torch.ones((), requires_grad=True), {}

    config = toy_config()
    with pytest.raises(AssertionError, match="no gradient has reached first, last"):
        loop.train(Detached(config), config, tmp_path, extra={}, resume=False)


def test_an_existing_run_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    train(tmp_path, "steps=2")
    with pytest.raises(ValueError, match="add --resume or choose another"):
        train(tmp_path, "steps=2")
    with pytest.raises(ValueError, match="got other values for seed, weight_decay,"):
        train(tmp_path, "steps=2", "seed=5", "weight_decay=0.5", "save_every=7", resume=True)
    train(tmp_path, "steps=3", "lr=1e-3", "micro_batch_size=1", "keep_checkpoints=1", resume=True)
    assert checkpoints.load(tmp_path)["step"] == 3
    assert [path.name for path in checkpoints.saved_in(tmp_path)] == ["step-00000003.pt"]


def test_batches_that_cannot_be_shared_name_those_that_can() -> None:
    assert micro_batches(12, processes=2, process=1, micro_batch_size=4) == [range(6, 10), range(10, 12)]
    check_batches(toy_config("batch_size=12", "micro_batch_size=3"), 2)
    check_batches(toy_config("batch_size=2", "micro_batch_size=8"), 2)
    with pytest.raises(ValueError, match=r"batch_size to be a multiple of 6 \(3 processes x 2 .* got 10, set it to 6 or 12"):
        check_batches(toy_config("batch_size=10", "micro_batch_size=2"), 3)
    with pytest.raises(ValueError, match="late_batch_size to be a multiple of 2 .* got 1, set it to 2,"):
        check_batches(toy_config("late_batch_size=1"), 2)
