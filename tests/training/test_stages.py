"""The diffusion stages on the tiny network: who trains, who does not, and the way to a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from faithdiff_core.checkpoint import split_state_dict
from faithdiff_core.keymap import ldm_to_diffusers
from training import loop, runstate
from training.config import TrainConfig
from training.diffusion_task import DiffusionTask
from training.export import export
from training.exported import load_exported, reference_features, reference_noise, write_reference
from training.model import build_model
from training.stages import Sources, averaged_weights, build_task, run_stage

Quick = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder with the runs vae, prior, align and joint of the tiny network, a few steps each, and the exported VAE."""
    from conftest import QUICK

    from training.config import override
    from training.recipes import recipe

    work = tmp_path_factory.mktemp("chain")
    base = [*QUICK, "steps=3", "batch_size=2", "crop_px=32"]
    vae = override(recipe("nano-vae"), [*base, "late_crop_px=0", "late_batch_size=0"])
    run_stage(vae, Sources(data=data), work / "vae", resume=False)
    export(work / "vae", work / "vae.safetensors", layout="full", dtype="fp32", data=data, licence="MIT", base_model="")
    for stage, before in (("prior", None), ("align", "prior"), ("joint", "align")):
        config = override(recipe(f"nano-{stage}"), [*base, "latent_crops=12", "target_size_px=32"])
        sources = Sources(data=data, vae=work / "vae.safetensors", init=work / before if before else None)
        run_stage(config, sources, work / stage, resume=False)
    return work


def task_of(chain: Path, data: Path, config: TrainConfig) -> DiffusionTask:
    before = {"prior": None, "align": chain / "prior", "joint": chain / "align"}[config.stage]
    task, _ = build_task(config, Sources(data=data, vae=chain / "vae.safetensors", init=before), chain / config.stage)
    assert isinstance(task, DiffusionTask)
    return task


TRAINED = {"prior": {"unet"}, "align": {"alignment"}, "joint": {"unet", "alignment", "lq_encoder"}}


@pytest.mark.parametrize("stage", sorted(TRAINED))
def test_only_the_stages_own_parts_get_gradients_and_change(
    chain: Path, data: Path, quick: Quick, tmp_path: Path, stage: str
) -> None:
    config = quick(f"nano-{stage}", "steps=4", "lr=1e-2")
    task = task_of(chain, data, config)
    before = {name: value.clone() for name, value in task.module.state_dict().items()}
    loop.train(task, config, tmp_path, extra={}, resume=False)
    changed = {name.split(".")[0] for name, value in task.module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == TRAINED[stage]
    loop.check_frozen(task.module, task.groups())
    loss, _ = task.loss(task.batch(0))
    loss.backward()
    for name, parameter in task.module.named_parameters():
        if name.split(".")[0] not in TRAINED[stage]:
            assert parameter.grad is None and not parameter.requires_grad, name
        # The no-prompt context is zeros: keys of it cannot matter.
        elif not name.endswith("attn2.to_k.weight") and not name.endswith("attn2.to_q.weight"):
            assert parameter.grad is not None, name
    optimiser = loop.make_optimiser(task.groups(), config)
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in task.module.parameters() if p.requires_grad}


@pytest.mark.parametrize("stage", sorted(TRAINED))
def test_loss_falls_on_one_batch(chain: Path, data: Path, quick: Quick, tmp_path: Path, stage: str) -> None:
    config = quick(f"nano-{stage}", "steps=40", "lr=3e-3", "log_every=5")
    task = task_of(chain, data, config)
    fixed = task.batch(0)
    task.batch = lambda _step: fixed  # type: ignore[method-assign]
    loop.train(task, config, tmp_path, extra={}, resume=False)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # The alignment alone steers a frozen, untrained UNet: it cannot do as much.
    assert rows[-1]["loss"] < (0.97 if stage == "align" else 0.7) * rows[0]["loss"]


def test_the_lq_encoder_learns_at_a_tenth(chain: Path, data: Path, quick: Quick) -> None:
    groups = task_of(chain, data, quick("nano-joint")).groups()
    assert {name: share for name, share, _ in groups} == {"lq_encoder": 0.1, "alignment": 1.0, "unet": 1.0}


def test_alignment_starts_at_zero_and_opens(chain: Path, data: Path, quick: Quick) -> None:
    task = task_of(chain, data, quick("nano-align"))
    batch = task.batch(0)
    with torch.no_grad():
        aligned = task.module(batch["noisy"], batch["timestep"], batch["time_ids"], batch["lq"])
        plain = task.module(batch["noisy"], batch["timestep"], batch["time_ids"], None)
    assert torch.equal(aligned, plain)
    trained = build_model(quick("nano-align"))
    trained.load_state_dict(runstate.load(chain / "align")["model"])
    with torch.no_grad():
        assert not torch.equal(trained(batch["noisy"], batch["timestep"], batch["time_ids"], batch["lq"]), plain)


def test_lq_encoder_starts_as_the_vaes(chain: Path, data: Path, quick: Quick) -> None:
    from training.networks import NETWORKS
    from training.vae_files import read_vae

    task = task_of(chain, data, quick("nano-align"))
    encoder = read_vae(chain / "vae.safetensors", NETWORKS["tiny"]).encoder
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    h = encoder.conv_in(image)
    for block in encoder.down_blocks:
        h = block(h)
    with torch.no_grad():
        assert torch.allclose(task.module.encode_lq(image), encoder.mid_block(h), atol=1e-5)


@pytest.mark.parametrize("mode", ["pointwise", "spatial"])
def test_rows_of_a_batch_do_not_mix(quick: Quick, mode: str) -> None:
    model = build_model(quick("nano-joint", f"alignment_mode={mode}")).eval()
    noisy, lq, ids = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64) * 2 - 1, torch.full((2, 6), 64.0)
    t = torch.tensor([400, 10])
    with torch.no_grad():
        both = model(noisy, t, ids, lq)
        alone = model(noisy[:1], t[:1], ids[:1], lq[:1])
    assert torch.allclose(both[:1], alone, atol=1e-5)


def test_draws_do_not_depend_on_the_batch_size_or_earlier_steps(chain: Path, data: Path, quick: Quick) -> None:
    small, large = (task_of(chain, data, quick("nano-joint", f"batch_size={count}")) for count in (1, 3))
    large.batch(0)
    for name, value in small.batch(2).items():
        assert torch.equal(value[0], large.batch(2)[name][0]), name
    assert large.batch(1)["time_ids"].dtype == torch.float32


@pytest.mark.parametrize("layout", ["full", "adapter"])
def test_export_splits_back_into_the_trained_weights(chain: Path, tmp_path: Path, layout: str) -> None:
    out = tmp_path / "out.safetensors"
    export(chain / "joint", out, layout=layout, dtype="fp32", data=None, licence="MIT", base_model="none")
    with safe_open(out, framework="pt") as file:
        header, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parts = split_state_dict(state, header)
    run = runstate.load(chain / "joint")
    weights = averaged_weights(run)
    assert not torch.equal(weights["alignment.proj_out.weight"], run["model"]["alignment.proj_out.weight"]), "the EMA is exported"
    got = {f"lq_encoder.{name}": value for name, value in parts.lq_encoder.items()}
    got |= {f"alignment.{name}": value for name, value in parts.alignment.items()}
    if layout == "full":
        assert parts.unet is not None
        names = ldm_to_diffusers(parts.unet)
        got |= {f"unet.{names[name]}": value for name, value in parts.unet.items()}
    else:
        assert parts.unet is None
        weights = {name: value for name, value in weights.items() if not name.startswith("unet.")}
    assert got.keys() == weights.keys()
    assert all(torch.equal(got[name], weights[name]) for name in weights)
    assert (parts.metadata.align_attention, parts.metadata.crop_units, parts.metadata.target_size_px) == (
        "pointwise",
        "pixel",
        32,
    )
    assert header["faithdiff.license"] == "MIT"
    told = json.loads(header["faithdiff.training"])
    assert (told["recipe"], told["steps"], len(told["data_digest"])) == ("nano-joint", 3, 64)
    assert [stage["recipe"] for stage in told["stages"]] == ["nano-prior", "nano-align", "nano-joint"]


def test_an_export_gives_the_trainers_own_numbers(chain: Path, quick: Quick, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    export(chain / "joint", out, layout="full", dtype="fp32", data=None, licence="", base_model="")
    model = build_model(quick("nano-joint")).eval()
    model.load_state_dict(averaged_weights(runstate.load(chain / "joint")))
    noisy, lq = torch.randn(2, 4, 8, 6), torch.rand(2, 3, 64, 48) * 2 - 1
    t, ids = torch.tensor([999, 21]), torch.tensor([[64.0, 48, 0, 0, 32, 32]]).expand(2, 6)
    features = reference_features(out, lq)
    with torch.no_grad():
        expected = model(noisy, t, ids, lq)
    assert torch.allclose(reference_noise(out, noisy, t, features, ids), expected, atol=1e-5)
    assert not torch.allclose(reference_noise(out, noisy, t, None, ids), expected, atol=1e-5)
    write_reference(out, tmp_path / "reference.safetensors", height_px=64, width_px=32, seed=1)
    told = load_file(tmp_path / "reference.safetensors")
    with torch.no_grad():
        again = model(told["noisy"], told["timestep"], told["time_ids"], told["lq"])
    assert torch.allclose(told["noise"], again, atol=1e-5)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_exports_are_the_rounded_weights(chain: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "out.safetensors"
    export(chain / "joint", out, layout="full", dtype=dtype, data=None, licence="", base_model="")
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    loaded, trained = load_exported(out).state_dict(), averaged_weights(runstate.load(chain / "joint"))
    assert all(torch.equal(loaded[name], trained[name].to(kind).float()) for name in loaded)


def test_what_cannot_be_exported_or_started_is_refused(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    def write(run: str, **options: object) -> None:
        given = {"layout": "full", "dtype": "fp16", "data": None, "licence": "", "base_model": ""} | options
        export(chain / run, tmp_path / "out.safetensors", **given)  # type: ignore[arg-type]

    refused = [
        ("prior", {}, "got prior"),
        ("vae", {}, "--data"),
        ("none", {}, "expected a checkpoint"),
        ("joint", {"dtype": "fp8"}, "--dtype"),
        ("joint", {"layout": "half"}, "--layout"),
    ]
    for run, options, message in refused:
        with pytest.raises(ValueError, match=message):
            write(run, **options)
    assert not list(tmp_path.iterdir())
    vae = chain / "vae.safetensors"
    for config, sources, message in (
        (quick("nano-prior"), Sources(data=data), "expected --vae"),
        (quick("nano-align"), Sources(data=data, vae=vae), "expected --init with a run of stage prior"),
        (quick("nano-joint"), Sources(data=data, vae=vae, init=chain / "prior"), "got stage prior"),
        (quick("nano-prior", "network=nano"), Sources(data=data, vae=vae), "expected a VAE of widths"),
        (quick("nano-prior", "network=huge"), Sources(data=data, vae=vae), "expected network"),
    ):
        with pytest.raises(ValueError, match=message):
            build_task(config, sources, tmp_path / "x")
