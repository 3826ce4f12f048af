"""`convert`, `--init` and `--base` on weight files of other tools: read, or refused in the words of the node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import foreign_files as foreign
from support.trainer_models import tiny, untrained_parts

from faithdiff_core.files.checkpoint import FaithDiffParts, assemble_adapter, assemble_full, assemble_released, split_state_dict
from faithdiff_core.files.keymap import diffusers_to_ldm, ldm_to_diffusers
from faithdiff_core.files.weight_file import check_weight_file
from faithdiff_core.lora import fit_lora, merged
from faithdiff_core.unet_layers import KNOWN_UNETS, layer_weights
from training.cli import main
from training.common.tensor_files import file_digest, read_parts
from training.model.networks import NETWORKS, build_unet
from training.weights.base import read_base_unet
from training.weights.initial import read_starting_point

Told = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def parts() -> FaithDiffParts:
    return untrained_parts()


@pytest.fixture(scope="module")
def released(parts: FaithDiffParts) -> foreign.State:
    return assemble_released(parts)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "ours.safetensors"


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def refusal(told: Told, *arguments: object) -> str:
    """What `convert` says in one line, having written nothing."""
    assert convert(*arguments) == 2
    error = told.readouterr().err
    assert error.startswith("error: expected ") and ", got " in error and error.count("\n") == 1, error
    assert not Path(str(arguments[arguments.index("--out") + 1])).exists()
    return error


def same(found: FaithDiffParts, parts: FaithDiffParts) -> bool:
    return all(
        getattr(found, part).keys() == getattr(parts, part).keys()
        and all(torch.equal(value, getattr(parts, part)[name]) for name, value in getattr(found, part).items())
        for part in ("unet", "lq_encoder", "alignment")
    )


@pytest.mark.parametrize("kind", foreign.NO_WEIGHTS)
def test_convert_says_what_a_file_is_as_the_node_does(tmp_path: Path, out: Path, capsys: Told, kind: str) -> None:
    content, words = foreign.NO_WEIGHTS[kind]
    path = tmp_path / "FaithDiff.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError) as told:
        check_weight_file(path)
    error = refusal(capsys, path, "--out", out)
    assert error == f"error: {told.value} ({path})\n" and words in error


@pytest.mark.parametrize("prefix", foreign.PREFIXES)
def test_prefixes(tmp_path: Path, out: Path, parts: FaithDiffParts, released: foreign.State, prefix: str) -> None:
    torch.save({"model": foreign.prefixed(released, prefix), "optimizer": {"state": {0: {"step": 3}}}}, tmp_path / "x.bin")
    assert convert(tmp_path / "x.bin", "--out", out) == 0
    assert same(read_parts(out), parts)


def test_several_tables(tmp_path: Path, out: Path, capsys: Told, parts: FaithDiffParts, released: foreign.State) -> None:
    path = tmp_path / "x.bin"
    torch.save({"model": {name: value + 1 for name, value in released.items()}, "ema": released, "epoch": 3}, path)
    assert "got 2 (model, ema); choose with `python -m training convert FILE --table model" in refusal(capsys, path, "--out", out)
    assert "got model, ema, epoch; choose one" in refusal(capsys, path, "--out", out, "--table", "best")
    assert convert(path, "--out", out, "--table", "ema") == 0
    assert same(read_parts(out), parts)


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_shards(tmp_path: Path, out: Path, capsys: Told, parts: FaithDiffParts, released: foreign.State, ending: str) -> None:
    folder = tmp_path / "shards"
    index = foreign.write_shards(folder, released, 3, ending=ending)
    for number, given in enumerate((folder, index)):
        written = out.with_stem(f"ours{number}")
        assert convert(given, "--out", written) == 0
        assert same(read_parts(written), parts)
    capsys.readouterr()
    first, second = (folder / (foreign.SHARD.format(number, 3) + ending) for number in (1, 2))
    assert "got shard 1 of 3 of one; put all of them" in refusal(capsys, first, "--out", out)
    assert "expected --sha256 with one file" in refusal(capsys, folder, "--out", out, "--sha256", "0" * 64)
    assert convert(folder, "--out", second) == 2 and "another file than the input" in capsys.readouterr().err
    second.rename(tmp_path / "second")
    for given in (folder, index):
        assert f"got 2: {second.name} missing; get it into the folder ({given})" in refusal(capsys, given, "--out", out)
    (tmp_path / "second").rename(second)
    assert index.read_text().count(second.name) > 1
    index.write_text(index.read_text().replace(second.name, first.name))
    assert f"got {first.name} without" in refusal(capsys, folder, "--out", out)
    index.write_text(json.dumps({"weight_map": {"a": "../x.bin"}}))
    assert "expected names of weight files beside the index, got ../x.bin" in refusal(capsys, folder, "--out", out)
    (folder / "other.index.json").write_text("{}")
    assert "got 2 (" in refusal(capsys, folder, "--out", out)


def test_a_damaged_shard_is_named(tmp_path: Path, out: Path, capsys: Told, released: foreign.State) -> None:
    foreign.write_shards(tmp_path / "shards", released, 2)
    second = tmp_path / "shards" / (foreign.SHARD.format(2, 2) + ".safetensors")
    second.write_bytes(foreign.POINTER)
    error = refusal(capsys, tmp_path / "shards", "--out", out)
    assert "got a Git LFS pointer" in error and error.endswith(f"({second})\n")


def test_shards_to_start_from(tmp_path: Path, parts: FaithDiffParts, released: foreign.State) -> None:
    """`--init` takes the folder or the index; `--base` the index of a UNet, and a prefixed one."""
    index = foreign.write_shards(tmp_path / "shards", released, 2)
    for given in (index, index.parent):
        start = read_starting_point(given, tiny())
        assert start.unet is not None and same_unet(start.unet, parts)
        shards = sorted(index.parent.glob("*.safetensors"))
        assert start.history == [{"file": each.name, "sha256": file_digest(each)} for each in shards]
    unet = {name: value for name, value in released.items() if not name.startswith(foreign.OURS)}
    assert same_unet(read_base_unet(foreign.write_shards(tmp_path / "unet", unet, 2)), parts)
    save_file({f"module.unet.{name}": value.contiguous() for name, value in unet.items()}, tmp_path / "unet.safetensors")
    assert same_unet(read_base_unet(tmp_path / "unet.safetensors"), parts)
    (tmp_path / "unet" / (foreign.SHARD.format(1, 2) + ".safetensors")).unlink()
    with pytest.raises(ValueError, match="expected all 2 shards in one folder, got 1: diffusion_pytorch_model-00001-of-00002"):
        read_base_unet(tmp_path / "unet")


def same_unet(unet: foreign.State, parts: FaithDiffParts) -> bool:
    names = diffusers_to_ldm(unet)
    assert parts.unet is not None
    return {names[name] for name in unet} == parts.unet.keys() and all(
        torch.equal(t, parts.unet[names[n]]) for n, t in unet.items()
    )


@pytest.fixture
def lora(released: foreign.State) -> foreign.State:
    unet = {name: value for name, value in released.items() if not name.startswith(foreign.OURS)}
    return foreign.peft_lora(unet, foreign.PEFT_NAMINGS[1])


def test_merging_a_lora(tmp_path: Path, out: Path, capsys: Told, parts: FaithDiffParts, released: foreign.State, lora) -> None:
    torch.save(released, tmp_path / "FaithDiff.bin")
    save_file(lora, tmp_path / "style.safetensors")
    assert convert(tmp_path / "FaithDiff.bin", "--lora", tmp_path / "style.safetensors", "--out", out) == 0
    assert capsys.readouterr().out.strip().endswith("; LoRA style.safetensors: 4 of 4 layers fit")
    found = read_parts(out).unet
    assert parts.unet is not None and found is not None
    expected = merged(parts.unet, fit_lora(lora, parts.unet))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sum(not torch.equal(found[name], parts.unet[name]) for name in found) == 4
    out.unlink()
    save_file({f"unet.x.lora_{each}.weight": torch.ones(2, 2) for each in "AB"}, tmp_path / "none.safetensors")
    arguments = (tmp_path / "FaithDiff.bin", "--out", out, "--lora", tmp_path / "none.safetensors")
    assert "got none of 1 that fits (unet.x); choose one that was trained on SDXL" in refusal(capsys, *arguments)
    save_file({n: t.contiguous() for n, t in assemble_adapter(parts).items()}, tmp_path / "adapter.safetensors")
    arguments = (tmp_path / "adapter.safetensors", "--out", out, "--lora", tmp_path / "style.safetensors")
    assert "expected a file with a UNet for --lora, got an adapter" in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("config", "scale"),
    [({"lora_alpha": 8, "r": 2}, 4.0), ({"lora_alpha": 4, "use_rslora": True}, 4 / 2**0.5), ({"lora_alpha": None}, 1.0)],
)
def test_pefts_folder_of_a_lora(tmp_path: Path, out: Path, parts: FaithDiffParts, lora, config: dict, scale: float) -> None:
    """The strength is not in the weights."""
    folder = tmp_path / "peft"
    folder.mkdir()
    save_file(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert convert(folder, "--out", out) == 0
    alphas = [float(value) for name, value in load_file(out).items() if name.endswith(".alpha")]
    assert alphas == pytest.approx([scale * 2] * 4)  # of rank 2


@pytest.mark.parametrize("network", ["sdxl", "vega", "nano"])
def test_known_unets_have_diffusers_layers(network: str) -> None:
    with torch.device("meta"):
        unet = build_unet(NETWORKS[network]).state_dict()
    names = diffusers_to_ldm(unet)
    expected = {names[name]: tuple(value.shape) for name, value in unet.items() if value.ndim > 1}
    sizes = KNOWN_UNETS[{"sdxl": "SDXL", "vega": "Segmind-Vega", "nano": "the nano model"}[network]]
    found = layer_weights(sizes)
    assert {name: tuple(value.shape) for name, value in found.items()} == expected
    assert ldm_to_diffusers(found) == {names[name]: name for name, value in unet.items() if value.ndim > 1}


def test_a_lora_for_the_hosts_own_loader(tmp_path: Path, out: Path, capsys: Told, parts: FaithDiffParts, lora) -> None:
    save_file(lora, tmp_path / "style.safetensors", {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2})})
    assert convert(tmp_path / "style.safetensors", "--out", out, "--dtype", "fp16") == 0
    assert capsys.readouterr().out.strip() == f"{out}: LoRA for Load LoRA: 4 of 4 layers fit (the nano model)"
    state = load_file(out)
    assert len(state) == 12 and all(name.startswith("lora_unet_") for name in state)
    assert parts.unet is not None and {each.scale for each in fit_lora(state, parts.unet).layers.values()} == {3.0}
    out.unlink()
    save_file({f"unet.x.lora_{each}.weight": torch.ones(2, 2) for each in "AB"}, tmp_path / "none.safetensors")
    error = refusal(capsys, tmp_path / "none.safetensors", "--out", out)
    assert "got none of 1 that fits (unet.x)" in error and "layers such as down_blocks.1.attentions.0" in error
    assert "to end in .safetensors for a LoRA" in refusal(
        capsys, tmp_path / "style.safetensors", "--out", out.with_suffix(".bin")
    )
    for odd in ({"alpha_pattern": {"x": 3}, "lora_alpha": 2}, {"use_dora": True}, {"lora_alpha": [1]}, [1]):
        save_file(lora, tmp_path / "odd.safetensors", {"lora_adapter_metadata": json.dumps(odd)})
        assert "expected one lora_alpha for all layers" in refusal(capsys, tmp_path / "odd.safetensors", "--out", out)


def test_a_lora_beside_an_adapter_in_one_file(tmp_path: Path, out: Path, capsys: Told, parts: FaithDiffParts, lora) -> None:
    """What is for another UNet is written beside it; where there is one in the file, it is merged."""
    for name, state in (("adapter", assemble_adapter(parts)), ("full", assemble_full(parts))):
        save_file({n: t.contiguous() for n, t in (state | lora).items()}, tmp_path / f"{name}.safetensors")
    assert convert(tmp_path / "adapter.safetensors", "--out", out) == 0
    assert "LoRA for Load LoRA: 4 of 4 layers fit" in capsys.readouterr().out
    assert len(load_file(out.with_suffix(".lora.safetensors"))) == 12
    assert split_state_dict(load_file(out)).unet is None
    assert convert(tmp_path / "full.safetensors", "--out", out) == 0
    assert "; LoRA: 4 of 4 layers fit" in capsys.readouterr().out
