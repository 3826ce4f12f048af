"""The diffusion stages on the tiny network: who trains, who does not, and that each can learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.compare import NETWORK, assert_close, relative_difference
from support.tiers import all_long_but
from support.trainer import KEPT_AS_FP16, NEVER_MATTER, without_gradient
from support.trainer_chain import sources_of, task_of
from support.trainer_models import made_up_model

from training.config.schema import Sources, TrainConfig
from training.data import manifest
from training.loop import checkpoints, loop
from training.model.faithdiff import build_model
from training.optim.optimisers import make_optimiser, only_train
from training.stages.stage import build_task, describe

Quick = Callable[..., TrainConfig]

TRAINED = {"prior": {"unet"}, "align": {"alignment"}, "joint": {"unet", "alignment", "lq_encoder"}}
AT_64_PX = ("crop_px=64", "target_size_px=64")
"""The smallest crops that leave the UNet's middle more than one cell. In one cell its attention has nothing to choose from, so
that its queries and keys get no gradient, and its norms have two values a group, whose sign a little more or less may turn."""


def part(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("stage", sorted(TRAINED))
def test_only_the_stages_own_parts_get_gradients_and_change(
    chain: Path, data: Path, quick: Quick, tmp_path: Path, stage: str
) -> None:
    config = quick(f"nano-{stage}", *AT_64_PX, "steps=4", "validate_every=0")
    task = task_of(chain, data, config)
    before = {name: value.clone() for name, value in task.module.state_dict().items()}
    loop.train(task, config, tmp_path, extra={}, resume=False)
    changed = {name for name, value in task.module.state_dict().items() if not torch.equal(value, before[name])}
    assert {part(name) for name in changed} == TRAINED[stage]
    # After so few steps the LQ branch is hardly open: behind it are 1e-9 of the UNet's gradients. With random weights it is.
    task.module.load_state_dict(made_up_model(config).state_dict())
    task.module.zero_grad()
    only_train(task.module, task.groups())
    batch = task.batch(0, range(2))
    # Without a prompt queries and keys cannot matter; with one everything must.
    generator = torch.Generator().manual_seed(0)
    batch |= {"context": torch.randn(2, 77, 16, generator=generator), "pooled": torch.randn(2, 16, generator=generator)}
    loss, _ = task.loss(task.module, batch)
    loss.backward()
    for name, parameter in task.module.named_parameters():
        trains = part(name) in TRAINED[stage]
        assert (parameter.grad is not None) == parameter.requires_grad == trains, name
    assert without_gradient(task.module) <= NEVER_MATTER
    held = [parameter for group in make_optimiser(task.groups(), config).param_groups for parameter in group["params"]]
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in held} == {id(p) for p in task.module.parameters() if p.requires_grad}


@pytest.mark.parametrize("stage", all_long_but(sorted(TRAINED), "align", "joint"))
def test_loss_falls_on_eight_crops(chain: Path, data: Path, quick: Quick, tmp_path: Path, stage: str) -> None:
    config = quick(f"nano-{stage}", *AT_64_PX, "steps=25", "batch_size=8", "lr=1e-3", "log_every=5", "validate_every=0")
    task = task_of(chain, data, config)
    fixed = task.batch(0, range(8))
    task.batch = lambda _step, _places: fixed  # type: ignore[method-assign]
    loop.train(task, config, tmp_path, extra={}, resume=False)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # Measured: 0.70 for the alignment, which alone steers a frozen, untrained UNet and cannot do as much; 0.18 for the others.
    assert rows[-1]["loss"] < (0.85 if stage == "align" else 0.5) * rows[0]["loss"]


def test_the_lq_encoder_learns_at_a_tenth(chain: Path, data: Path, quick: Quick) -> None:
    groups = task_of(chain, data, quick("nano-joint", "validate_every=0")).groups()
    assert {name: share for name, share, _ in groups} == {"lq_encoder": 0.1, "alignment": 1.0, "unet": 1.0}


def test_alignment_starts_at_zero_and_opens(chain: Path, data: Path, quick: Quick) -> None:
    task = task_of(chain, data, quick("nano-align"))
    batch = task.batch(0, range(2))
    given = [batch[name] for name in ("noisy", "timestep", "time_ids")]
    with torch.no_grad():
        plain = task.module(*given, None)
        assert torch.equal(task.module(*given, batch["lq"]), plain)
    trained = build_model(quick("nano-align"))
    trained.load_state_dict(checkpoints.load(chain / "align")["model"])
    with torch.no_grad():
        assert not torch.equal(trained(*given, batch["lq"]), plain)


@pytest.mark.parametrize("latent_crops", [0, 12])
def test_draws_do_not_depend_on_the_batch_or_earlier_steps(chain: Path, data: Path, quick: Quick, latent_crops: int) -> None:
    """The third of four places, asked for alone, after others, and within its batch."""
    config = quick("nano-joint", "batch_size=4", f"latent_crops={latent_crops}", "validate_every=0")
    one, other = task_of(chain, data, config), task_of(chain, data, config)
    other.batch(0, range(4))
    whole = other.batch(2, range(4))
    for name, value in one.batch(2, range(2, 3)).items():
        assert relative_difference(value[0], whole[name][2]) <= NETWORK, name
    assert whole["time_ids"].dtype == torch.float32 and len(set(whole["timestep"].tolist())) > 1
    assert not torch.equal(whole["noise"], other.batch(3, range(4))["noise"])


def test_latents_are_those_of_the_vae(chain: Path, data: Path, quick: Quick) -> None:
    """A crop encoded at its step has the posterior that a bank would hold, so both ways train alike."""
    from training.model.networks import encode
    from training.weights.initial import load_vae

    config = quick("nano-prior", "latent_crops=12")
    task = task_of(chain, data, config)
    vae = load_vae(config, sources_of(chain, data, "prior"))
    for sample in task.source.samples(0, range(2)):
        assert sample.posterior_CHW is not None
        with torch.no_grad():
            expected = encode(vae, sample.image_CHW[None])[0]
        assert_close(sample.posterior_CHW, expected, KEPT_AS_FP16)


def test_prompts_reach_the_unet_and_are_dropped(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    from support.trainer_text import write_text_encoders

    folder = write_text_encoders(tmp_path / "sdxl", widths=(8, 8), projection=16)
    records = [replace(record, caption=f"a picture of {record.key}") for record in manifest.read(data)]
    captioned = tmp_path / "captioned.jsonl"
    manifest.write(records, captioned)
    tasks = {
        dropout: task_of(
            chain,
            captioned,
            quick("nano-joint", "batch_size=4", "prompts=captions", f"prompt_dropout={dropout}", "validate_every=0"),
            text=folder,
        )
        for dropout in (0.0, 1.0)
    }
    kept, dropped = (tasks[dropout].batch(0, range(4)) for dropout in (0.0, 1.0))
    assert kept["context"].shape == (4, 77, 16) and kept["pooled"].shape == (4, 16)
    captions = {sample.caption for sample in tasks[0.0].source.samples(0, range(4))}
    assert len(kept["context"].unique(dim=0)) == len(captions) > 1
    assert len(dropped["context"].unique(dim=0)) == 1
    for name in ("noisy", "timestep", "lq"):
        assert torch.equal(kept[name], dropped[name]), "dropping a prompt must not move other draws"
    model = tasks[0.0].module
    given = [kept[name] for name in ("noisy", "timestep", "time_ids", "lq")]
    with torch.no_grad():
        assert not torch.equal(
            model(*given, kept["context"], kept["pooled"]), model(*given, dropped["context"], dropped["pooled"])
        )
    with pytest.raises(ValueError, match="expected --text"):
        task_of(chain, captioned, quick("nano-joint", "prompts=captions"))


def test_pairs_are_used_instead_of_degradation(chain: Path, tmp_path: Path, pictures_dir: Path, quick: Quick) -> None:
    from training.cli import main
    from training.common.images import read_image, write_png

    lq = tmp_path / "lq"
    for path in pictures_dir.glob("*.png"):
        image = read_image(path).float()[None]
        # Black twins: no degradation of the bright pictures would give them.
        write_png(lq / path.name, torch.nn.functional.avg_pool2d(image * 0, 2)[0].to(torch.uint8))
    assert (
        main(["prepare", str(pictures_dir), "--lq", str(lq), "--min-side", "32", "--val-frac", "0", "--out", str(tmp_path / "m")])
        == 0
    )
    batch = task_of(chain, tmp_path / "m", quick("nano-align")).batch(0, range(2))
    assert torch.equal(batch["lq"], torch.full_like(batch["lq"], -1.0))


def test_what_cannot_be_started_is_refused(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    vae = chain / "vae.safetensors"
    for config, sources, message in (
        (quick("nano-prior"), Sources(data=data), "expected --vae"),
        (quick("nano-align"), Sources(data=data, vae=vae), "--init"),
        (quick("nano-prior", "network=nano"), Sources(data=data, vae=vae), "widths"),
        (quick("nano-prior", "network=huge"), Sources(data=data, vae=vae), "expected network"),
    ):
        with pytest.raises(ValueError, match=message):
            build_task(config, sources, tmp_path / "x")


def test_dry_run_tells_settings_data_and_memory(data: Path, quick: Quick) -> None:
    text = describe(quick("nano-joint", "validate_every=0", "device=cpu"), Sources(data=data))
    assert "network = tiny" in text and "data: 6 pictures" in text
    for word in ("lq_encoder", "alignment", "unet", "gradients", "optimiser", "activations"):
        assert word in text
