"""Load FaithDiff Model on weight files of other tools: the same picture, or the message that `convert` gives, too."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from comfyui_faithdiff.faithdiff_core import lora
from comfyui_faithdiff.faithdiff_core.files.checkpoint import assemble_adapter, assemble_released
from comfyui_faithdiff.faithdiff_core.files.keymap import ldm_to_diffusers
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from comfyui_faithdiff.faithdiff_core.files.weight_file import check_weight_file
from comfyui_faithdiff.nodes.load_model import FaithDiffLoadModel, load
from comfyui_faithdiff.nodes.seam import folders
from support import foreign_files as foreign
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.sampling import Loaded, align, sample

IMAGE = tiny.image(64, 64)


@pytest.fixture(scope="module")
def parts():
    return tiny.made_up_parts()


@pytest.fixture(scope="module")
def released(parts):
    return assemble_released(parts)


@pytest.fixture
def models_folder(tmp_path):
    """A folder of the node's list."""
    import folder_paths

    folders.register()
    folder_paths.add_model_folder_path("faithdiff", str(tmp_path))
    yield tmp_path
    folder_paths.folder_names_and_paths["faithdiff"][0].remove(str(tmp_path))


def picture(loaded):
    model, latent = align(loaded, IMAGE)
    return sample(model, latent)


def equal_weights(a, b):
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("kind", foreign.NO_WEIGHTS)
def test_the_node_says_what_a_file_is(models_folder, kind):
    content, words = foreign.NO_WEIGHTS[kind]
    path = models_folder / "FaithDiff.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError) as told:
        check_weight_file(path)
    with pytest.raises(ValueError) as refused:
        FaithDiffLoadModel.execute("FaithDiff.bin", "default")
    assert str(refused.value) == f"FaithDiff.bin: {told.value}" and words in str(refused.value)


@pytest.mark.parametrize("prefix", foreign.PREFIXES)
@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_the_node_reads_prefixed_names(tmp_path, parts, released, prefix, ending):
    state, path = foreign.prefixed(released, prefix), tmp_path / f"x{ending}"
    if ending == ".bin":
        config = {"alignment": {"num_heads": 8}, "lq_encoder": {"norm_groups": 32}, "unet": {"num_head_channels": 64}}
        parts = replace(parts, metadata=replace(parts.metadata, config=config, target_size_px=1024, crop_units="latent"))
        torch.save({"model": state, "optimizer": {"state": {0: {"step": 1}}}, "epoch": 3}, path)
    else:
        write_safetensors(path, state, parts.metadata.to_header())
    (model, bundle), (plain, plain_bundle) = load(str(path)), load(str(tiny.write_full(tmp_path / "plain.safetensors", parts)))
    assert equal_weights(model, plain)
    assert all(equal_weights(a, b) for a, b in zip(bundle.get_models(), plain_bundle.get_models(), strict=True))


def test_several_tables(tmp_path, released):
    torch.save({"model": released, "ema": released}, tmp_path / "x.bin")
    with pytest.raises(ValueError, match=r"^x.bin: expected one table of weights, got 2 \(model, ema\); choose with `python"):
        load(str(tmp_path / "x.bin"))


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_one_shard_and_the_index(models_folder, released, ending):
    index = foreign.write_shards(models_folder, released, 3, ending=ending)
    name = foreign.SHARD.format(2, 3) + ending
    with pytest.raises(ValueError, match=f"^{name}: expected a whole file, got shard 2 of 3 of one; .*convert FOLDER --out"):
        FaithDiffLoadModel.execute(name, "default")
    assert name in folders.model_names() and index.name not in folders.model_names()
    with pytest.raises(ValueError, match="index.json: expected weights, got an index, which has none itself but names 3 shards"):
        load(str(index))


def diffusers_unet(parts):
    names = ldm_to_diffusers(parts.unet)
    return {names[name]: value for name, value in parts.unet.items()}


@pytest.mark.parametrize("naming", foreign.PEFT_NAMINGS)
def test_a_lora_in_the_same_file(tmp_path, parts, naming, caplog):
    """Merged into the file's own UNet, or put on base_model: the picture of a UNet with the LoRA merged."""
    factors = foreign.peft_lora(diffusers_unet(parts), naming)
    whole = replace(parts, unet=lora.merged(parts.unet, lora.fit_lora(factors, parts.unet)))
    merged = Loaded(*load(str(tiny.write_full(tmp_path / "merged.safetensors", whole))))
    expected, header = picture(merged), parts.metadata.to_header()
    plain = Loaded(*load(str(tiny.write_full(tmp_path / "plain.safetensors", parts))))
    assert relative_difference(picture(plain), expected) > CHANGED
    caplog.set_level(logging.INFO)
    write_safetensors(tmp_path / "full.safetensors", assemble_released(parts) | factors, header)
    full = Loaded(*load(str(tmp_path / "full.safetensors")))
    assert "full.safetensors: LoRA: 4 of 4 layers fit" in caplog.text
    assert_close(picture(full), expected, NETWORK)
    factory, args = full.model.cached_patcher_init
    assert equal_weights(factory(*args), full.model)
    write_safetensors(tmp_path / "adapter.safetensors", assemble_adapter(parts) | factors, header)
    before = len(plain.model.patches)
    adapter = Loaded(*load(str(tmp_path / "adapter.safetensors"), base_model=plain.model))
    assert "adapter.safetensors: LoRA: 4 of 4 layers fit" in caplog.text and len(adapter.model.patches) == 4
    assert_close(picture(adapter), expected, NETWORK)
    assert len(plain.model.patches) == before


def test_a_lora_that_does_not_fit(tmp_path, parts, loaded):
    factors = {f"unet.mid.{f}.weight": torch.ones(4, 4) for f in ("lora_A", "lora_B")}
    write_safetensors(tmp_path / "x.safetensors", assemble_adapter(parts) | factors, parts.metadata.to_header())
    with pytest.raises(
        ValueError, match=r"^x.safetensors: expected a LoRA for this UNet .*, got none of 1 that fits \(unet.mid\)"
    ):
        load(str(tmp_path / "x.safetensors"), base_model=loaded.model)


def test_a_lora_alone(tmp_path, parts):
    write_safetensors(tmp_path / "x.safetensors", foreign.peft_lora(diffusers_unet(parts), foreign.PEFT_NAMINGS[1]), {})
    with pytest.raises(ValueError, match=r"^x.safetensors: expected a FaithDiff file, got .*base_model.*: a LoRA, for Load LoRA"):
        load(str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("naming", foreign.PEFT_NAMINGS)
def test_what_is_made_of_a_lora_is_taken_whole_by_the_hosts_own_node(parts, loaded, naming):
    import comfy.sd

    fitted = lora.fit_lora(foreign.peft_lora(diffusers_unet(parts), naming), parts.unet)
    model, _ = comfy.sd.load_lora_for_models(loaded.model, None, fitted.host_state(), 1.0, 0.0)
    assert len(model.patches) == len(fitted.layers) == 4
