"""The fidelity decoder's memory: the restoration of its crops, and its steps, each against the trainer's own code at work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from training.batches.restored_cache import crop_bytes
from training.batches.restored_crops import RESTORED_AT_ONCE, FrozenModel, restore
from training.common.tensor_files import write_archive
from training.config.recipes import recipe
from training.config.schema import TrainConfig
from training.loop import loop
from training.loop.task import Batch
from training.metrics.perceptual import LPIPS, PerceptualDistance
from training.model.faithdiff import build_model, make_part
from training.model.networks import build_vae, network_spec
from training.stages.memory import SAMPLING_STEPS, MemoryEstimate, estimates, report
from training.stages.without_content import CPU, empty_batch, empty_crop
from training.tasks.fidelity import FidelityTask, build_network

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benchmarks"))

import train_memory  # noqa: E402

TOLERANCE = 0.15


class Apart(nn.Module):
    """Stands for a perceptual network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
        return (self.conv(image_BCHW) - self.conv(reference_BCHW)).square()


class MadeUp(FidelityTask):
    """Batches hold the same values at every place."""

    def batch(self, step: int, indices: range) -> Batch:
        batch = empty_batch(self.config, len(indices), self.config.crop_px)
        return {name: torch.full_like(value, 0.5) for name, value in batch.items()}


def config_of(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"recipe": "test", "stage": "fidelity", "network": "tiny", "steps": 3, "batch_size": 2, "lr": 1e-3}
    crops = {"restored_crops": 8, "crop_px": 128, "device": "cpu", "precision": "fp32", "tracker": "none", "threads": 1}
    return TrainConfig(**settings | crops | changes)


def of(config: TrainConfig, perceptual: PerceptualDistance | None = None, **others: Any) -> list[MemoryEstimate]:
    """[restoration, steps]"""
    return estimates(config, **{"on_gpu": False, "processes": 1, "sharded": False, "perceptual": perceptual} | others)


def frozen_model(config: TrainConfig) -> FrozenModel:
    model, vae = (part.requires_grad_(False).eval() for part in (build_model(config), build_vae(network_spec(config.network))))
    return FrozenModel(model=cast(Any, model), vae=cast(Any, vae), texts=None, device=CPU)


def bytes_of(module: nn.Module) -> int:
    return sum(value.nbytes for value in (*module.parameters(), *module.buffers()))


def test_the_restoration_agrees_with_a_restoration_at_work() -> None:
    config = config_of(restored_crop_px=160)
    found = of(config)[0]
    frozen = frozen_model(config)
    assert found.phase == "restoration of the crops"
    assert found.weights_bytes == bytes_of(frozen.model) + bytes_of(frozen.vae)
    assert found.gradients_bytes == found.optimiser_bytes == found.ema_bytes == 0
    made_up = empty_crop(config)
    pictures = {name: torch.full_like(value, 0.5) for name, value in vars(made_up).items() if isinstance(value, torch.Tensor)}

    def work() -> None:
        crops = [replace(made_up, **{name: value.clone() for name, value in pictures.items()}) for _ in range(RESTORED_AT_ONCE)]
        restore(frozen_model(config), crops, str(SAMPLING_STEPS), precision=config.precision)

    assert found.total_bytes == pytest.approx(train_memory.allocated_by(work), rel=TOLERANCE)


@pytest.mark.parametrize("settings", [{}, {"restored_features": True, "adversarial_weight": 0.1, "perceptual_weight": 0.1}])
def test_a_step_agrees_with_the_loop_at_work(settings: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(**settings)
    perceptual = PerceptualDistance(LPIPS, Apart().requires_grad_(False), "") if config.perceptual_weight else None

    def work() -> None:
        encoder = None if config.restored_features else cast(Any, make_part(config, "lq_encoder"))
        task = MadeUp(config, cast(Any, None), build_network(config, encoder), device=CPU, perceptual=perceptual)
        loop.train(task, config, tmp_path / "run", extra={}, resume=False)

    found = of(config, perceptual)[1]
    assert found.total_bytes == pytest.approx(train_memory.allocated_by(work), rel=TOLERANCE)
    if perceptual is not None:
        without = of(config)[1]
        assert found.weights_bytes - bytes_of(perceptual.network) == without.weights_bytes
        assert found.activations_bytes > without.activations_bytes


@pytest.mark.long
def test_the_restoration_is_by_one_process_whatever_shares_the_steps() -> None:
    config = config_of()
    alone, shared = of(config), of(config, processes=2, sharded=True)
    assert alone[0] == shared[0] and alone[1].activations_bytes > shared[1].activations_bytes
    larger = of(config_of(restored_crop_px=256))
    assert larger[0].activations_bytes > 3 * alone[0].activations_bytes and larger[1] == alone[1]


def test_the_report_tells_both_parts_and_the_disk(tmp_path: Path) -> None:
    config = config_of(restored_crops=1000, restored_features=True)
    lines = report(config).splitlines()
    assert lines[0].startswith("trains: fidelity_decoder 0.01 M; together")
    assert "reached in the restoration of the crops" in lines[1] and "pass" in lines[2]
    assert lines[3:] == ["restored crops on disk: 1,000 of 128 px, 0.16 GB"]
    pictures = {name: torch.zeros(3, 128, 128, dtype=torch.uint8) for name in ("hq", "lq", "decoded")}
    features = torch.zeros(network_spec("tiny").fidelity_decoder.feature_channels, 16, 16, dtype=torch.float16)
    write_archive(tmp_path / "crop.pt", {**pictures, "features": features})
    assert crop_bytes(config) == pytest.approx((tmp_path / "crop.pt").stat().st_size, rel=0.05)


@pytest.mark.long
def test_the_recipe_fits_the_card_that_it_names() -> None:
    assert max(found.total_bytes for found in of(recipe("fidelity-decoder"), on_gpu=True)) < 20e9, "the libraries take some, too"
