"""The loop: what trains, what does not, exact resume, and stopping on a loss that is no number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import loop, runstate
from training.config import TrainConfig
from training.stages import Sources, build_task
from training.vae_task import VAETask

Quick = Callable[..., TrainConfig]


def vae_task(config: TrainConfig, data: Path) -> VAETask:
    task, _ = build_task(config, Sources(data=data), Path("unused"))
    assert isinstance(task, VAETask)
    return task


def equal(a: object, b: object) -> bool:
    """Deep equality of checkpoints, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_vae_loss_falls_on_one_batch(quick: Quick, data: Path, tmp_path: Path) -> None:
    class OneBatch(VAETask):
        def batch(self, step: int) -> dict[str, torch.Tensor]:
            return super().batch(0)

    config = quick("nano-vae", "steps=40", "lr=3e-3", "log_every=5")
    loop.train(OneBatch(config, vae_task(config, data).store), config, tmp_path / "run", extra={}, resume=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 40
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert {"grad_norm", "images_per_s", "lr", "psnr_db"} <= set(rows[0])


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(quick: Quick, data: Path, tmp_path: Path) -> None:
    config = quick("nano-vae", "steps=6", "save_every=2", "late_from_frac=0.5", "late_crop_px=64", "late_batch_size=1")
    extra = {"data_digest": "x"}
    loop.train(vae_task(config, data), config, tmp_path / "whole", extra=extra, resume=False)
    loop.train(vae_task(config, data), config, tmp_path / "parts", extra=extra, resume=False, stop_after=3)
    torch.manual_seed(12345)  # whatever happened in between
    loop.train(vae_task(config, data), config, tmp_path / "parts", extra=extra, resume=True)
    whole, parts = runstate.load(tmp_path / "whole"), runstate.load(tmp_path / "parts")
    assert whole["step"] == parts["step"] == 6
    for name in ("model", "optimiser", "ema", "extra", "config"):
        assert equal(whole[name], parts[name]), name
    assert not equal(whole["model"], whole["model"] | whole["ema"]), "EMA must differ from the last weights here"


def test_a_killed_write_leaves_the_former_checkpoint(
    quick: Quick, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick("nano-vae", "steps=4", "save_every=1")
    loop.train(vae_task(config, data), config, tmp_path, extra={}, resume=False, stop_after=1)
    before = (tmp_path / runstate.FILE_NAME).read_bytes()

    def broken_save(_state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", broken_save)
    with pytest.raises(OSError, match="no space"):
        loop.train(vae_task(config, data), config, tmp_path, extra={}, resume=True)
    assert (tmp_path / runstate.FILE_NAME).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", runstate.FILE_NAME, "log.jsonl"]


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(quick: Quick, data: Path, tmp_path: Path) -> None:
    config = quick("nano-vae", "steps=5", "save_every=1")
    loop.train(vae_task(config, data), config, tmp_path, extra={}, resume=False, stop_after=2)
    before = (tmp_path / runstate.FILE_NAME).read_bytes()

    class Poisoned(VAETask):
        def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            loss, figures = super().loss(batch)
            return loss * float("nan"), figures

    with pytest.raises(loop.DivergedError, match="loss is nan at step 2"):
        loop.train(Poisoned(config, vae_task(config, data).store), config, tmp_path, extra={}, resume=True)
    assert (tmp_path / runstate.FILE_NAME).read_bytes() == before


def test_an_existing_run_is_not_overwritten_nor_mixed(quick: Quick, data: Path, tmp_path: Path) -> None:
    config = quick("nano-vae", "steps=2")
    loop.train(vae_task(config, data), config, tmp_path, extra={}, resume=False)
    with pytest.raises(ValueError, match="add --resume or choose another"):
        loop.train(vae_task(config, data), config, tmp_path, extra={}, resume=False)
    other = quick("nano-vae", "steps=2", "lr=0.5", "save_every=7")
    with pytest.raises(ValueError, match="got other values for lr,"):
        loop.train(vae_task(other, data), other, tmp_path, extra={}, resume=True)
    longer = quick("nano-vae", "steps=3")
    loop.train(vae_task(longer, data), longer, tmp_path, extra={}, resume=True)
    assert runstate.load(tmp_path)["step"] == 3
    (tmp_path / runstate.FILE_NAME).write_bytes(b"damage")
    with pytest.raises(ValueError, match="expected a whole checkpoint"):
        runstate.load(tmp_path)


def test_gradients_are_clipped_and_the_norm_is_logged(quick: Quick, data: Path, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(VAETask):
        def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            loss, figures = super().loss(batch)
            return loss * 1e4, figures

    config = quick("nano-vae", "steps=1", "clip_norm=0.5")
    task = Watched(config, vae_task(config, data).store)
    original = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: object, **options: object) -> object:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(torch.stack([grad.norm() for grad in grads]).norm().item())
        return original(self, *args, **options)  # type: ignore[arg-type]

    torch.optim.AdamW.step = spy  # type: ignore[method-assign]
    try:
        figures = loop.train(task, config, tmp_path, extra={}, resume=False)
    finally:
        torch.optim.AdamW.step = original  # type: ignore[method-assign]
    assert seen == [pytest.approx(0.5, rel=1e-3)]
    assert figures["grad_norm"] > 100
