"""What the nano model's own stages add: several noise draws a crop, mixed levels and scales, and a decoder trained by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.compare import NETWORK, assert_close
from support.trainer_chain import sources_of, task_of
from support.trainer_models import inputs, tiny

from training.config.schema import Sources, TrainConfig
from training.degradation.presets import MIXTURES, drawn, preset
from training.loop import loop
from training.model.faithdiff import build_model
from training.model.networks import LATENT_SCALE, encode
from training.stages.stage import build_task
from training.stages.without_content import empty_batch
from training.weights.export import export
from training.weights.vae import read_vae

Quick = Callable[..., TrainConfig]


def test_draws_of_one_picture_are_the_picture_repeated() -> None:
    """Features are computed once and used for every draw; the result is that of as many copies of the picture."""
    model = build_model(tiny()).eval()
    one = inputs(batch=1)
    noisy, timesteps = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5)), torch.tensor([3, 500, 900])
    encoded = []
    model.lq_encoder.register_forward_hook(lambda _module, _inputs, out: encoded.append(len(out)))
    with torch.no_grad():
        drawn_once = model(noisy, timesteps, one["time_ids_B6"], one["lq_BCHW"])
        repeated = model(noisy, timesteps, one["time_ids_B6"].repeat(3, 1), one["lq_BCHW"].repeat(3, 1, 1, 1))
    assert encoded == [1, 3]
    assert_close(drawn_once, repeated, NETWORK)


def test_a_batch_holds_every_draw(chain: Path, data: Path, quick: Quick) -> None:
    config = quick("nano-joint", "noise_draws=3")
    batch = task_of(chain, data, config).batch(0, range(2))
    assert {name: len(value) for name, value in batch.items()} == {
        "noisy": 6, "noise": 6, "timestep": 6, "time_ids": 2, "lq": 2,
    }  # fmt: skip
    assert len(set(batch["timestep"].tolist())) > 2
    single = task_of(chain, data, quick("nano-joint")).batch(0, range(2))
    assert torch.equal(batch["noise"][0], single["noise"][0]), "the first draw is that of a run with one"
    shapes = {name: value.shape for name, value in empty_batch(config, 2, config.crop_px).items()}
    assert shapes == {name: value.shape for name, value in batch.items()}, "the memory estimate counts the same batch"


def test_levels_and_scales_are_drawn_for_each_picture(chain: Path, data: Path, quick: Quick) -> None:
    drawn_presets = [drawn("levels", torch.Generator().manual_seed(seed)) for seed in range(60)]
    counts = [sum(one is preset(level) for one in drawn_presets) for level in MIXTURES["levels"]]
    assert sum(counts) == 60 and min(counts) > 8, counts
    task = task_of(
        chain, data, quick("nano-joint", "degradation=levels", "degradation_scale=2", "degradation_scale_max=4", "steps=8")
    )
    scales = {task._scale(sample) for step in range(8) for sample in task.source.samples(step, range(2))}
    assert scales == {2, 3, 4}
    assert task.batch(0, range(2))["lq"].shape == (2, 3, 32, 32)


def test_the_decoder_stage_keeps_the_latents(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    config = quick("nano-decoder", "steps=3", "latent_noise=0.5")
    sources = Sources(data=data, vae=chain / "vae.safetensors")
    task, facts = build_task(config, sources, tmp_path / "decoder")
    batch = task.batch(0, range(2))
    strengths = batch["error"].flatten(1).std(1) * LATENT_SCALE
    assert batch["error"].shape == batch["noise"].shape and (strengths < 0.6).all() and strengths[0] != strengths[1]
    assert {name: value.shape for name, value in empty_batch(config, 2, 32).items()} == {n: v.shape for n, v in batch.items()}
    loop.train(task, config, tmp_path / "decoder", extra=facts, resume=False)
    export(
        tmp_path / "decoder", tmp_path / "out.safetensors", layout="full", dtype="fp32", data=None, licence="MIT", base_model=""
    )
    before, after = read_vae(chain / "vae.safetensors"), read_vae(tmp_path / "out.safetensors")
    moved = {
        name.split(".")[0] for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])
    }
    assert moved == {"decoder", "post_quant_conv"}
    assert torch.equal(encode(before, batch["image"]), encode(after, batch["image"]))


def test_a_decoder_run_is_no_starting_point(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    config = quick("nano-decoder", "steps=1")
    task, facts = build_task(config, Sources(data=data, vae=chain / "vae.safetensors"), tmp_path / "decoder")
    loop.train(task, config, tmp_path / "decoder", extra=facts, resume=False)
    with pytest.raises(ValueError, match="expected --init with a run of stage prior, align or joint, got decoder"):
        build_task(quick("nano-joint"), sources_of(chain, data, "joint", init=tmp_path / "decoder"), tmp_path)
    with pytest.raises(ValueError, match="expected --vae or --base with a VAE for stage decoder"):
        build_task(config, Sources(data=data), tmp_path)
