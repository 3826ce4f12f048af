"""From a run to files: which weights they hold, what they say of themselves, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.tiers import all_long_but
from support.trainer_models import made_up_model, tiny, write_run

from faithdiff_core.files.keymap import ldm_to_diffusers
from training.common.tensor_files import read_parts
from training.config.schema import TrainConfig
from training.model.faithdiff import FaithDiffComposite, build_model
from training.model.lora import host_lora
from training.weights.export import export
from training.weights.initial import averaged_weights, part_of
from training.weights.load_export import load_exported

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def write(run: Path, out: Path, **options: Any) -> str:
    given = {"layout": "full", "dtype": "fp32", "data": None, "licence": "MIT", "base_model": "a base"}
    return export(run, out, **given | options)


def run_of(folder: Path, config: TrainConfig, *, averaged: bool = True) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run folder and the weights that an export of it must hold."""
    model = made_up_model(config)
    names = [name for name, _ in model.named_parameters() if name.split(".")[0] in config.parts]
    if config.lora_rank:
        names = [name for name in names if not name.startswith("unet.") or ".lora_" in name]
    ema = {name: model.state_dict()[name].float() * 1.25 for name in names} if averaged else {}
    return write_run(folder / "run", config, model, ema=ema), model.state_dict() | ema


def predict(model: FaithDiffComposite) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noisy, lq = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        return model(noisy, torch.tensor([900, 20]), torch.full((2, 6), 64.0), lq)


VARIANTS = {
    "pointwise": {},
    "spatial": {"alignment_mode": "spatial"},
    "no layers": {"alignment_layers": 0},
    "align": {"stage": "align"},
    "bf16 unet": {"unet_dtype": "bf16"},
    "lora": {"lora_rank": 2},
    "lora beside bf16": {"lora_rank": 2, "unet_dtype": "bf16"},
}


def check_prediction(variant: str, averaged: bool, tmp_path: Path) -> None:
    config = tiny(**VARIANTS[variant])
    run, weights = run_of(tmp_path, config, averaged=averaged)
    model = build_model(config)
    model.unet.float()  # the average of bf16 weights is fp32
    model.load_state_dict(weights)
    out = tmp_path / "out.safetensors"
    write(run, out)
    assert_close(predict(load_exported(out)), predict(model), NETWORK)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_full_export_predicts_what_the_average_does(variant: str, tmp_path: Path) -> None:
    check_prediction(variant, True, tmp_path)


@pytest.mark.parametrize("variant", all_long_but(list(VARIANTS), "pointwise", "lora beside bf16"))
def test_a_full_export_of_a_run_without_average(variant: str, tmp_path: Path) -> None:
    """The choice does not depend on the variant, but for weights that are kept in two types."""
    check_prediction(variant, False, tmp_path)


@pytest.fixture(scope="module")
def joint_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    return run_of(tmp_path_factory.mktemp("joint"), tiny())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["full", "adapter"])
def test_the_weights_are_the_runs_own(
    layout: str, dtype: str, joint_run: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    run, weights = joint_run
    out = tmp_path / "out.safetensors"
    line = write(run, out, layout=layout, dtype=dtype)
    assert ("the trained UNet is left out" in line) == (layout == "adapter")
    parts = read_parts(out)
    got = {f"lq_encoder.{name}": value for name, value in parts.lq_encoder.items()}
    got |= {f"alignment.{name}": value for name, value in parts.alignment.items()}
    if parts.unet is not None:
        names = ldm_to_diffusers(parts.unet)
        got |= {f"unet.{names[name]}": value for name, value in parts.unet.items()}
    expected = {n: v for n, v in weights.items() if layout == "full" or not n.startswith("unet.")}
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name].to(DTYPES[dtype])) for name in got)


def test_what_the_file_says(tmp_path: Path) -> None:
    config = tiny(alignment_mode="spatial", target_size_px=512)
    run, _ = run_of(tmp_path, config)
    out = tmp_path / "out.safetensors"
    write(run, out)
    with safe_open(out, "pt") as file:
        header = file.metadata()
    assert header["faithdiff.align_attention"] == "spatial" and header["faithdiff.crop_units"] == "pixel"
    assert (header["faithdiff.target_size_px"], header["faithdiff.base_model"], header["faithdiff.license"]) == (
        "512",
        "a base",
        "MIT",
    )
    told = json.loads(header["faithdiff.training"])
    assert (told["recipe"], told["steps"], told["data_digest"]) == ("test", 1, "d" * 64)
    assert told["config"] == vars(config)
    assert told["stages"] == [{"recipe": "before", "steps": 2, "seed": 0}, {"recipe": "test", "steps": 1, "seed": 0}]
    assert json.loads(header["faithdiff.config"])["alignment"]["num_heads"] == 2


def test_an_adapter_brings_its_lora_beside_it(tmp_path: Path) -> None:
    config = tiny(lora_rank=2)
    run, weights = run_of(tmp_path, config)
    out = tmp_path / "out.safetensors"
    line = write(run, out, layout="adapter", dtype="fp16")
    beside = tmp_path / "out.lora.safetensors"
    assert f"{beside}: the UNet's LoRA" in line and "left out" not in line
    assert read_parts(out).unet is None
    got, expected = load_file(beside), host_lora(part_of(weights, "unet"))
    assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name].half()) for name in got)
    full = tmp_path / "full.safetensors"
    write(run, full)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "full.safetensors",
        "out.lora.safetensors",
        "out.safetensors",
        "run",
    ]


def test_an_export_read_back_takes_a_prompt(joint_run: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    run, _ = joint_run
    out = tmp_path / "out.safetensors"
    write(run, out)
    model = load_exported(out)
    noisy, t, ids = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.full((1, 6), 64.0)
    without = model.predict(noisy, t, ids, None)
    context, pooled = torch.randn(1, 77, 16), torch.randn(1, 16)
    assert relative_difference(model.predict(noisy, t, ids, None, context, pooled), without) > CHANGED


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in ("joint", "prior", "last", "wide", "nan")}
    write_run(runs["joint"], tiny(), made_up_model(tiny()))
    write_run(runs["prior"], tiny(stage="prior"), made_up_model(tiny(stage="prior")))
    write_run(runs["last"], tiny(lq_features="last"), made_up_model(tiny(lq_features="last")))
    for name, value in (("wide", 1e5), ("nan", float("nan"))):
        model = made_up_model(tiny())
        model.unet.conv_in.weight.data[0, 0, 0, 0] = value
        write_run(runs[name], tiny(), model)
    out = tmp_path / "out" / "out.safetensors"
    for run, options, message in (
        ("joint", {"layout": "half"}, "--layout full or adapter"),
        ("joint", {"dtype": "fp8"}, "--dtype fp16, bf16, fp32"),
        ("prior", {}, "got prior"),
        ("last", {}, "lq_features=last"),
        ("wide", {"dtype": "fp16"}, "weights within 65504 in the UNet, got larger ones in 1 tensors .input_blocks.0.0.weight"),
        ("nan", {}, "expected finite weights in the UNet"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            write(runs[run], out, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="to end in .safetensors"):
        write(runs["joint"], tmp_path / "out.bin")
    assert not list(out.parent.glob("*"))
    assert write(runs["wide"], out, dtype="bf16") and averaged_weights({"model": {"a": 1}, "ema": None}) == {"a": 1}
