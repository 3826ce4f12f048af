"""The estimate against the trainer's own loop at work, and what each saving does to it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config.overrides import override
from training.config.schema import TrainConfig
from training.stages.live_bytes import LiveBytes
from training.stages.memory import MemoryEstimate, estimate, report

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benchmarks"))

import train_memory  # noqa: E402

TOLERANCE = 0.15


def config_of(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"recipe": "test", "stage": "joint", "network": "tiny", "steps": 4, "batch_size": 2, "lr": 1e-3}
    return TrainConfig(**settings | {"latent_crops": 8, "crop_px": 128, "device": "cpu"} | changes)


def of(**changes: Any) -> MemoryEstimate:
    return estimate(config_of(**changes), on_gpu=False)


@pytest.fixture(scope="module")
def plain() -> MemoryEstimate:
    return of()


@pytest.mark.parametrize(
    "settings",
    [
        ("network=tiny", "crop_px=128"),
        pytest.param(("network=nano", "crop_px=64"), marks=pytest.mark.long),
        pytest.param(
            ("network=tiny", "crop_px=128", "optimiser=adamw8bit", "unet_dtype=bf16", "fused_backward=true"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("network=tiny", "crop_px=128", "lora_rank=8", "micro_batch_size=1", "gradient_checkpointing=true"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_estimate_agrees_with_the_loop_at_work(settings: tuple[str, ...]) -> None:
    config = override(train_memory.BASE, [*settings, "threads=1"])
    measured = train_memory.allocator_bytes(config)
    assert estimate(config, on_gpu=False).total_bytes == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.skipif(os.environ.get("FAITHDIFF_LARGE_TESTS") != "1", reason="FAITHDIFF_LARGE_TESTS=1 is not set (needs 6 GB)")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("settings", [("stage=align",), ("unet_dtype=bf16", "lora_rank=16", "gradient_checkpointing=true")])
def test_the_estimate_agrees_at_vega_size(settings: tuple[str, ...]) -> None:
    row = train_memory.measure(("network=vega", "batch_size=1", *settings))
    assert row["estimate_per_allocator"] == pytest.approx(1.0, abs=TOLERANCE)
    assert row["estimate_per_resident"] == pytest.approx(1.0, abs=TOLERANCE)


def test_states_are_counted_by_their_bytes(plain: MemoryEstimate) -> None:
    values = plain.weights_bytes // 4
    assert plain.ema_bytes == plain.weights_bytes
    assert plain.optimiser_bytes == pytest.approx(8 * values, rel=1e-3)
    less = of(ema_decay=0.0, optimiser="adamw8bit")
    assert less.ema_bytes == 0 and less.optimiser_bytes < 0.35 * plain.optimiser_bytes


@pytest.mark.long
def test_each_saving_saves(plain: MemoryEstimate) -> None:
    assert of(gradient_checkpointing=True).activations_bytes < 0.8 * plain.activations_bytes
    assert of(lora_rank=2).optimiser_bytes < 0.6 * plain.optimiser_bytes
    assert of(stage="align").activations_bytes < 0.8 * plain.activations_bytes
    halves = of(micro_batch_size=1)
    assert halves.gradients_bytes == plain.weights_bytes
    assert halves.activations_bytes < 0.7 * plain.activations_bytes
    assert of(batch_size=16, micro_batch_size=1).total_bytes == halves.total_bytes
    assert of(unet_dtype="bf16", stage="align").weights_bytes < 0.7 * plain.weights_bytes


def test_the_frozen_vae_counts_where_crops_are_encoded(plain: MemoryEstimate) -> None:
    assert of(latent_crops=0).weights_bytes > plain.weights_bytes


@pytest.mark.long
def test_a_gpu_keeps_norms_in_fp32_and_may_leave_the_average_outside(plain: MemoryEstimate) -> None:
    gpu = estimate(config_of(ema_on_cpu=True), on_gpu=True)
    assert gpu.activations_bytes > 1.1 * plain.activations_bytes
    assert gpu.ema_bytes == 0
    assert of(ema_on_cpu=True).ema_bytes == plain.ema_bytes


@pytest.mark.long
def test_processes_share_the_batch_and_with_fsdp_the_states(plain: MemoryEstimate) -> None:
    config = config_of()
    ddp = estimate(config, on_gpu=False, processes=2)
    assert ddp.gradients_bytes == plain.weights_bytes
    assert ddp.optimiser_bytes == plain.optimiser_bytes
    assert ddp.activations_bytes < 0.7 * plain.activations_bytes
    fsdp = estimate(config, on_gpu=False, processes=2, sharded=True)
    assert fsdp.optimiser_bytes == plain.optimiser_bytes // 2
    assert fsdp.weights_bytes == plain.weights_bytes // 2


def test_the_largest_crops_of_the_run_count() -> None:
    late = of(stage="vae", late_crop_px=256, late_from_frac=0.5)
    assert late.total_bytes == of(stage="vae", crop_px=256).total_bytes


def test_report_names_what_trains_and_the_memory() -> None:
    text = report(config_of(stage="align"))
    assert text.startswith("trains: alignment 0.23 M; together 0.23 of 2.86 M")
    assert "memory on the CPU: about 0.0" in text
    assert "GPU" not in text


def test_live_bytes_counts_real_tensors_until_they_are_freed() -> None:
    with LiveBytes(lambda _func, _args: 0) as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1.0
        live.mark([b], "weights")
        c = b * 2
        assert dict(live.now) == {"activations": 8000, "weights": 4000}
        del a, c
        assert live.now["activations"] == 0
        assert sum(live.peak.values()) == 12000
