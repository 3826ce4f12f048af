"""What a run starts from: which part comes from which file, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from support.compare import NETWORK, assert_close
from support.trainer_models import (
    made_up_model,
    tiny,
    write_checkpoint_file,
    write_diffusers_base,
    write_released,
    write_run,
)

from faithdiff_core.architecture import LQEncoderSizes
from faithdiff_core.files.metadata import FaithDiffMetadata
from training.common.tensor_files import file_digest
from training.config.schema import Sources
from training.model.faithdiff import FaithDiffComposite
from training.model.networks import NETWORKS, build_vae
from training.weights.export import write_faithdiff
from training.weights.initial import initial_model, load_vae, part_of

SPEC = replace(NETWORKS["tiny"], encoder=LQEncoderSizes(block_out_channels=(32, 32, 64, 64), layers_per_block=1))
"""Foreign VAE files do not tell how many norm groups they have: they have SDXL's 32."""


@pytest.fixture(scope="module", autouse=True)
def sdxl_like_tiny() -> object:
    """The tiny network with a VAE that a foreign file could hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", SPEC)
        yield


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(8)
    return build_vae(SPEC).eval()


@pytest.fixture(scope="module")
def model() -> FaithDiffComposite:
    """Spatial, so that it has queries and keys, as the released file does."""
    return made_up_model(tiny(alignment_mode="spatial"), seed=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, model: FaithDiffComposite, vae: AutoencoderKL) -> Path:
    return write_diffusers_base(tmp_path_factory.mktemp("base") / "sdxl", model.unet, vae)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, model: FaithDiffComposite) -> Path:
    return write_released(tmp_path_factory.mktemp("released") / "FaithDiff.bin", model)


def sources(**files: Path) -> Sources:
    return Sources(data=Path("none"), **files)


def same(module: torch.nn.Module, other: torch.nn.Module | Mapping[str, torch.Tensor]) -> bool:
    expected = other.state_dict() if isinstance(other, torch.nn.Module) else other
    got = module.state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


def is_silent(alignment: torch.nn.Module) -> bool:
    """Whether the module adds exactly nothing, though it has weights."""
    state = alignment.state_dict()
    zero = [name for name, value in state.items() if name.endswith("weight") and not value.any()]
    return zero == ["condition_embedding.conv_out.weight", "proj_out.weight"]


@pytest.mark.parametrize("kind", ["folder", "fp16 folder", "file"])
def test_from_an_sdxl_base(kind: str, tmp_path: Path, model: FaithDiffComposite, vae: AutoencoderKL) -> None:
    if kind == "file":
        path = write_checkpoint_file(tmp_path / "sdxl.safetensors", model.unet, vae)
        weights = path
    else:
        variant = ".fp16" if kind == "fp16 folder" else ""
        path = write_diffusers_base(tmp_path / "sdxl", model.unet, vae, variant=variant)
        weights = path / "unet" / f"diffusion_pytorch_model{variant}.safetensors"
    config = tiny(stage="align")
    started, before = initial_model(config, sources(base=path))
    assert same(started.unet, model.unet) and same(load_vae(config, sources(base=path)), vae)
    encoder = vae.encoder.state_dict()
    assert same(started.lq_encoder, {name: encoder[name] for name in started.lq_encoder.state_dict()})
    assert is_silent(started.alignment)
    assert before == [{"file": weights.name, "sha256": file_digest(weights)}]


def test_a_vae_of_its_own_overrides_the_bases(tmp_path: Path, base: Path, model: FaithDiffComposite) -> None:
    torch.manual_seed(9)
    other = build_vae(SPEC)
    folder = write_diffusers_base(tmp_path / "other", model.unet, other) / "vae"
    config = tiny(stage="align")
    assert same(load_vae(config, sources(base=base, vae=folder)), other)
    started, _ = initial_model(config, sources(base=base, vae=folder))
    assert torch.equal(started.lq_encoder.conv_in.weight, other.encoder.conv_in.weight)


@pytest.mark.parametrize("kind", ["released", "full"])
def test_from_a_faithdiff_file(kind: str, released: Path, model: FaithDiffComposite, tmp_path: Path) -> None:
    path = released
    if kind == "full":
        path = tmp_path / "full.safetensors"
        config = tiny(alignment_mode="spatial")
        facts = FaithDiffMetadata(training={"stages": [{"recipe": "old", "steps": 3, "seed": 0}]})
        write_faithdiff(path, model.state_dict(), config, facts, layout="full", dtype=torch.float32)
    mode = "pointwise" if kind == "released" else "spatial"
    started, before = initial_model(tiny(alignment_mode=mode), sources(init=path))
    assert same(started.unet, model.unet) and same(started.lq_encoder, model.lq_encoder)
    expected = {
        n: v for n, v in model.alignment.state_dict().items() if mode == "spatial" or n.split(".")[-2] not in ("to_q", "to_k")
    }
    assert same(started.alignment, expected)
    file = {"file": path.name, "sha256": file_digest(path)}
    assert before == ([file] if kind == "released" else [{"recipe": "old", "steps": 3, "seed": 0}, file])


def test_from_an_adapter_and_a_base(base: Path, model: FaithDiffComposite, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    config = tiny(alignment_mode="spatial")
    other = made_up_model(config, seed=5)
    write_faithdiff(path, other.state_dict(), config, FaithDiffMetadata(), layout="adapter", dtype=torch.float32)
    started, before = initial_model(config, sources(init=path, base=base))
    assert same(started.unet, model.unet)
    assert same(started.lq_encoder, other.lq_encoder) and same(started.alignment, other.alignment)
    assert [row["file"] for row in before] == ["adapter.safetensors", "diffusion_pytorch_model.safetensors"]
    with pytest.raises(ValueError, match="expected a UNet to start stage joint from"):
        initial_model(config, sources(init=path))


@pytest.mark.parametrize("stage", ["prior", "align", "joint"])
@pytest.mark.parametrize("averaged", [True, False])
def test_from_a_run(stage: str, averaged: bool, tmp_path: Path, base: Path, vae: AutoencoderKL) -> None:
    config = tiny(stage=stage, alignment_mode="spatial")
    trained = made_up_model(config, seed=3)
    parts = {"prior": ["unet"], "align": ["alignment"], "joint": ["unet", "alignment", "lq_encoder"]}[stage]
    ema = {n: v + 1 for n, v in trained.state_dict().items() if n.split(".")[0] in parts} if averaged else {}
    run = write_run(tmp_path / "run", config, trained, ema=ema)
    weights = trained.state_dict() | ema
    started, before = initial_model(tiny(alignment_mode="spatial"), sources(init=run, base=base))
    assert same(started.unet, part_of(weights, "unet"))
    assert [row["recipe"] for row in before] == ["before", "test"]
    if stage == "prior":  # its other parts were never used
        assert is_silent(started.alignment)
        assert torch.equal(started.lq_encoder.conv_in.weight, vae.encoder.conv_in.weight)
    else:
        assert same(started.lq_encoder, part_of(weights, "lq_encoder")) and same(started.alignment, part_of(weights, "alignment"))


def test_a_prior_may_start_from_nothing_or_from_a_base(base: Path, model: FaithDiffComposite) -> None:
    started, before = initial_model(tiny(stage="prior"), sources())
    assert before == [] and not started.use_alignment and started.unet.conv_in.weight.any()
    assert same(initial_model(tiny(stage="prior"), sources(base=base))[0].unet, model.unet)


def test_types_are_as_configured(base: Path) -> None:
    started, _ = initial_model(tiny(stage="align", unet_dtype="bf16", lora_rank=2), sources(base=base))
    assert {p.dtype for p in started.unet.parameters()} == {torch.bfloat16}, "stage align trains no UNet, so it has no LoRA"
    assert {p.dtype for p in started.lq_encoder.parameters()} == {torch.float32}


def test_nothing_stays_mapped(tmp_path: Path, model: FaithDiffComposite, vae: AutoencoderKL) -> None:
    """A file that somebody writes over must not change a run that started from it."""
    base = write_diffusers_base(tmp_path / "sdxl", model.unet, vae)
    started, _ = initial_model(tiny(stage="align"), sources(base=base))
    for path in base.rglob("*.safetensors"):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    encoder = vae.encoder.state_dict()
    assert same(started.unet, model.unet)
    assert same(started.lq_encoder, {name: encoder[name] for name in started.lq_encoder.state_dict()})


def test_modes(released: Path, model: FaithDiffComposite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Queries and keys of a pointwise file are taken where there are some; a spatial file's values alone would be wrong."""
    started, _ = initial_model(tiny(alignment_mode="spatial"), sources(init=released))
    assert same(started.alignment, model.alignment)
    assert "never trained to attend" in capsys.readouterr().err
    base = tmp_path / "run"
    for held, wanted in (("pointwise", "spatial"), ("spatial", "pointwise")):
        run = write_run(base / held, tiny(alignment_mode=held), made_up_model(tiny(alignment_mode=held)))
        started, _ = initial_model(tiny(alignment_mode=wanted), sources(init=run))
        assert is_silent(started.alignment)
        assert f"--init is {held} and this run {wanted}" in capsys.readouterr().err


def test_ablations(released: Path, base: Path, vae: AutoencoderKL, capsys: pytest.CaptureFixture[str]) -> None:
    started, _ = initial_model(tiny(alignment_layers=0), sources(init=released))
    assert is_silent(started.alignment) and "has 2 layers and this run 0" in capsys.readouterr().err
    started, _ = initial_model(tiny(lq_features="last"), sources(init=released, vae=base))
    assert same(started.lq_encoder, vae.encoder) and is_silent(started.alignment)
    assert "has penultimate features and this run last" in capsys.readouterr().err


def test_lora_goes_on_where_it_is_the_same_and_is_merged_where_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(lora_rank=2)
    trained = made_up_model(config, seed=4)
    run = write_run(tmp_path / "run", config, trained)
    assert same(initial_model(config, sources(init=run))[0].unet, trained.unet)
    assert not capsys.readouterr().err
    again, _ = initial_model(tiny(lora_rank=3), sources(init=run))
    assert "merged into the UNet" in capsys.readouterr().err
    full, _ = initial_model(tiny(), sources(init=run))
    noisy = torch.randn(1, 4, 8, 8)
    given = (noisy, torch.tensor([500]), torch.full((1, 6), 64.0), None)
    with torch.no_grad():
        for started in (again, full):
            assert_close(started.predict(*given), trained.predict(*given), NETWORK)


def test_what_does_not_fit_is_refused(
    tmp_path: Path, base: Path, released: Path, model: FaithDiffComposite, vae: AutoencoderKL
) -> None:
    run = write_run(tmp_path / "run", tiny(), made_up_model(tiny()))
    v_prediction = write_diffusers_base(tmp_path / "v", model.unet, vae)
    (v_prediction / "scheduler").mkdir()
    (v_prediction / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "v_prediction"}))
    sd15 = write_diffusers_base(tmp_path / "sd15", model.unet, vae)
    (sd15 / "vae" / "config.json").write_text(json.dumps({"scaling_factor": 0.18215}))
    (tmp_path / "empty").mkdir()
    less = write_diffusers_base(tmp_path / "less", torch.nn.ModuleDict({"down_blocks": model.unet.down_blocks}), vae)
    nano = tiny(stage="align", network="nano")
    for config, files, message in (
        (tiny(), {}, "expected a UNet to start stage joint from, got none"),
        (tiny(), {"init": tmp_path / "gone"}, "does not exist"),
        (tiny(), {"init": tmp_path / "empty"}, "expected .* checkpoint"),
        (tiny(), {"init": base / "unet" / "diffusion_pytorch_model.safetensors"}, "expected a FaithDiff file"),
        (tiny(), {"base": released.parent}, "got no diffusion_pytorch_model.safetensors in"),
        (tiny(), {"base": v_prediction}, "predicts the noise"),
        (tiny(), {"base": sd15}, "scaling_factor 0.13025.*got 0.18215"),
        (tiny(), {"base": less}, "expected an SDXL-family UNet, got one without"),
        (nano, {"base": base}, r"unet_channels \(64, 128, 128\), got \(64, 64, 64\).*--set network=tiny"),
        (nano, {"init": run}, "a run of network nano, got tiny"),
        (nano, {"init": released}, r"unet_channels \(64, 128, 128\)"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            initial_model(config, sources(**files))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected --vae or --base"):
        load_vae(tiny(), sources())
