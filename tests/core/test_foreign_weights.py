"""Weight files of other tools: what is none is called by its name, prefixes and wraps are taken off, shards are put together."""

from __future__ import annotations

import json

import pytest
import torch
from comfyui_faithdiff.faithdiff_core import lora
from comfyui_faithdiff.faithdiff_core.files import checkpoint as ck
from comfyui_faithdiff.faithdiff_core.files import shards, weight_file
from comfyui_faithdiff.faithdiff_core.files.keymap import ldm_to_diffusers
from comfyui_faithdiff.faithdiff_core.files.wrappers import without_wrappers
from support import foreign_files as foreign
from support import tiny


@pytest.fixture(scope="module")
def parts():
    return tiny.made_up_parts()


@pytest.fixture(scope="module")
def released(parts):
    return ck.assemble_released(parts)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def same(found, parts):
    return equal(found.unet, parts.unet) and equal(found.lq_encoder, parts.lq_encoder) and equal(found.alignment, parts.alignment)


@pytest.mark.parametrize("name", ["x.bin", "x.safetensors", "x.ckpt"])
@pytest.mark.parametrize("kind", foreign.NO_WEIGHTS)
def test_what_is_no_weight_file(tmp_path, kind, name):
    content, words = foreign.NO_WEIGHTS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as refused:
        weight_file.check_weight_file(tmp_path / name)
    message = str(refused.value)
    assert message.startswith("expected ") and words in message and "; " in message and "\n" not in message


def test_a_pickle_called_safetensors_and_the_reverse(tmp_path, released):
    torch.save(released, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="got a torch pickle under that name; rename it to end in .bin"):
        weight_file.check_weight_file(tmp_path / "x.safetensors")
    tiny.write_full(tmp_path / "y.safetensors", tiny.made_up_parts()).rename(tmp_path / "y.bin")
    with pytest.raises(ValueError, match="got a safetensors file under another name; rename it to end in .safetensors"):
        weight_file.check_weight_file(tmp_path / "y.bin")


@pytest.mark.parametrize("prefix", foreign.PREFIXES)
def test_prefixes(parts, released, prefix):
    assert same(ck.split_state_dict(foreign.prefixed(released, prefix)), parts)


def test_prefixes_of_our_own_layout(parts):
    full = ck.assemble_full(parts)
    assert same(ck.split_state_dict(full), parts)
    assert same(ck.split_state_dict({f"module.{name}": value for name, value in full.items()}), parts)


def test_a_prefix_that_only_some_names_have_stays(released):
    half = {f"module.{name}" if number % 2 else name: value for number, (name, value) in enumerate(released.items())}
    with pytest.raises(ValueError, match="module"):
        ck.split_state_dict(half)
    with pytest.raises(ValueError, match="expected each tensor once, got some twice, with a prefix and without"):
        without_wrappers({"module.conv_in.x": 1, "conv_in.x": 2}, ("conv_in",), beside=("conv_in.x",))


def test_prefixes_of_hostile_length():
    """Each of a million prefixes taken off by itself would be an hour."""
    name = "module." * 100_000
    assert without_wrappers({name: 1}, ("conv_in",)) == {name: 1}


def test_other_checkpoints_are_known_behind_a_prefix(parts):
    plain = {f"module.{ck.UNET_PREFIX}{name}": value for name, value in parts.unet.items()}
    with pytest.raises(ValueError, match="got a plain SDXL checkpoint or UNet"):
        ck.split_state_dict(plain)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s, "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4}]}, "epoch": 2},
        lambda s: {"state_dict": s, "hyper": {}},
        lambda s: {"params": s},
        lambda s: {"ema": s, "step": 7},
        lambda s: {"module": s, "dp_world_size": 8},
        lambda s: {"model": {"state_dict": s}, "loss": 0.5},
    ],
)
def test_wrapped_tables(released, wrap):
    assert equal(weight_file.named_tensors(wrap(released)), released)


def test_several_tables_are_for_the_user_to_choose(released):
    both = {"model": released, "ema": {k: t + 1 for k, t in released.items()}}
    with pytest.raises(ValueError, match=r"got 2 \(model, ema\); choose with `python -m training convert FILE --table model"):
        weight_file.named_tensors(both)
    assert equal(weight_file.named_tensors(both, "ema"), both["ema"])
    with pytest.raises(ValueError, match=r"expected a table best in the file, got model, ema; choose one that is there"):
        weight_file.named_tensors(both, "best")


@pytest.mark.parametrize("value", [[1], {"model": 3}, {"a": {"b": 1}}, {"model": {"model": {"model": {"model": {}}}}}, 3])
def test_pickles_of_other_things(value):
    with pytest.raises(ValueError, match="expected a table of named tensors, got a pickle of"):
        weight_file.named_tensors(value)


def test_shards_of_a_folder_and_an_index(tmp_path, released):
    index = foreign.write_shards(tmp_path, released, 3)
    for path in (tmp_path, index):
        found = shards.find_shards(path)
        assert [each.name for each in found.paths] == [foreign.SHARD.format(n, 3) + ".safetensors" for n in (1, 2, 3)]
        assert found.weight_map.keys() == released.keys()
    index.unlink()
    assert len(shards.find_shards(tmp_path).paths) == 3
    (tmp_path / (foreign.SHARD.format(2, 3) + ".safetensors")).unlink()
    with pytest.raises(ValueError, match=r"expected all 3 shards in one folder, got 2: diffusion_pytorch_model-00002-of-00003"):
        shards.find_shards(tmp_path)


def test_shards_that_are_missing(tmp_path, released):
    index = foreign.write_shards(tmp_path, released, 3, ending=".bin")
    (tmp_path / (foreign.SHARD.format(2, 3) + ".bin")).unlink()
    with pytest.raises(ValueError, match=r"got 2: diffusion_pytorch_model-00002-of-00003.bin missing; get it into the folder"):
        shards.find_shards(index)
    for path in tmp_path.glob("*.bin"):
        path.unlink()
    with pytest.raises(ValueError, match="got an index, which has none itself but names 3 shards"):
        shards.find_shards(index)


@pytest.mark.parametrize(
    "name",
    [
        "../x.bin",
        "/etc/x.bin",
        "a/x.bin",
        "..\\x.bin",
        "C:\\x.bin",
        "C:x.bin",
        "x.txt",
        "",
        "..",
        ".x.bin",
        "x\n.bin",
        "a" * 300 + ".bin",
    ],
)
def test_an_index_never_leads_out_of_its_folder(tmp_path, name):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "x.bin").write_bytes(b"")
    index = folder / "model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="expected names of weight files beside the index, got ") as refused:
        shards.find_shards(index)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "x", "[" * 10**5, '{"weight_map": 3}']
)
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "m.index.json").write_text(text)
    with pytest.raises(ValueError, match="expected an index of shards"):
        shards.find_shards(tmp_path / "m.index.json")


def test_a_folder_with_several_networks_or_none(tmp_path):
    with pytest.raises(ValueError, match="expected a folder with an index or a weight file, got none in it"):
        shards.find_shards(tmp_path)
    for name in ("a.safetensors", "b.bin"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"got 2 files \(a.safetensors, b.bin\); name one of them in place of the folder"):
        shards.find_shards(tmp_path)
    for name in ("a.index.json", "b.index.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"expected one index in the folder, got 2 \(a.index.json, b.index.json\)"):
        shards.find_shards(tmp_path)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / f"{foreign.SHARD.format(1, 99999)}.bin").touch()
    with pytest.raises(ValueError, match="expected at most 1000 shards"):
        shards.find_shards(tmp_path / "only")


def test_shards_that_do_not_hold_what_the_index_says(tmp_path):
    found = shards.Shards([tmp_path / "1", tmp_path / "2"], {"a": "1", "b": "2"})
    found.require_all({"1": ["a"], "2": ["b"]})
    with pytest.raises(ValueError, match=r"got 2 without 1 of them \(b\)"):
        found.require_all({"1": ["a"], "2": []})
    with pytest.raises(ValueError, match="expected each tensor once, got a in 1 and 2"):
        found.require_all({"1": ["a"], "2": ["b", "a"]})


def test_one_shard_alone(parts, released):
    name = foreign.SHARD.format(1, 3) + ".safetensors"
    words = r"^expected a whole file, got shard 1 of 3 of one; put all of them and their index into one folder"
    for number in range(3):
        with pytest.raises(ValueError, match=words):
            shards.whole_parts(name, {key: released[key] for key in list(released)[number::3]})
    ours_and_half = {key: released[key] for key in sorted(released) if not key.startswith("up_")}
    with pytest.raises(ValueError, match=words):
        shards.whole_parts(name, ours_and_half)
    assert same(shards.whole_parts(name, released), parts)  # whole after all, whatever it is called
    assert same(shards.whole_parts(foreign.SHARD.format(1, 1) + ".safetensors", released), parts)
    with pytest.raises(ValueError, match="expected a FaithDiff file"):
        shards.whole_parts("x.safetensors", {})


@pytest.fixture(scope="module")
def diffusers_unet(parts):
    names = ldm_to_diffusers(parts.unet)
    return {names[name]: value for name, value in parts.unet.items()}


def added(unet, diffusers_unet, factors, scale=1.0):
    """By hand: what a LoRA of diffusers' layers adds, on LDM names."""
    names = {diffusers: ldm for ldm, diffusers in ldm_to_diffusers(unet).items()}
    state = dict(unet)
    for name in {each for each in diffusers_unet if each.endswith(".weight")}:
        down, up = (factors.get(f"{name.removesuffix('.weight')}.{factor}") for factor in "AB")
        if down is not None:
            delta = torch.einsum("or,ri->oi", up.flatten(1).double(), down.flatten(1).double()).reshape(unet[names[name]].shape)
            state[names[name]] = (unet[names[name]].double() + scale * delta).float()
    return state


NAMINGS = (*foreign.PEFT_NAMINGS, "module.unet.{layer}.lora_{factor}.weight", "{layer}.lora_{factor}.style.weight")


@pytest.mark.parametrize("naming", NAMINGS)
def test_lora_of_peft(parts, diffusers_unet, naming):
    state = foreign.peft_lora(diffusers_unet, naming)
    fitted = lora.fit_lora(state, parts.unet)
    assert str(fitted) == "4 of 4 layers fit"
    expected = added(parts.unet, diffusers_unet, foreign.peft_lora(diffusers_unet, "{layer}.{factor}"))
    found = lora.merged(parts.unet, fitted)
    assert found.keys() == expected.keys() and all(torch.allclose(found[k], expected[k], atol=1e-4) for k in found)
    assert sum(not torch.equal(found[k], parts.unet[k]) for k in found) == 4


def test_lora_in_other_tools_names(parts, diffusers_unet):
    """kohya's with an alpha, and diffusers' before peft: the same layers as peft's."""
    layer = next(name.removesuffix(".weight") for name in diffusers_unet if name.endswith("attn1.to_out.0.weight"))
    down, up = torch.ones(2, 2 * tiny.WIDTH), torch.ones(2 * tiny.WIDTH, 2)
    kohya = f"lora_unet_{layer.replace('.', '_')}"
    named = {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up, f"{kohya}.alpha": torch.tensor(1.0)}
    old = "unet." + layer.replace(".to_out.0", ".processor.to_out") + "_lora"
    a, b = lora.fit_lora(named, parts.unet), lora.fit_lora({f"{old}.down.weight": down, f"{old}.up.weight": up}, parts.unet)
    assert a.layers.keys() == b.layers.keys() and len(a.layers) == 1
    assert [next(iter(each.layers.values())).scale for each in (a, b)] == [0.5, 1.0]


def test_lora_strength(parts, diffusers_unet):
    state = foreign.peft_lora(diffusers_unet, foreign.PEFT_NAMINGS[0], rank=4)
    for settings, scale in ((None, 1.0), (lora.LoraSettings(alpha=8), 2.0), (lora.LoraSettings(alpha=8, root=True), 4.0)):
        fitted = lora.fit_lora(state, parts.unet, settings)
        assert {each.scale for each in fitted.layers.values()} == {scale}
        again = lora.fit_lora(fitted.host_state(), parts.unet)
        assert {each.scale for each in again.layers.values()} == {scale} and again.layers.keys() == fitted.layers.keys()


def test_lora_that_fits_in_part_or_not_at_all(parts, diffusers_unet):
    state = foreign.peft_lora(diffusers_unet, foreign.PEFT_NAMINGS[0])
    other = {
        "text_encoder.layers.0.q_proj.lora_A.weight": torch.ones(2, 8),
        "text_encoder.layers.0.q_proj.lora_B.weight": torch.ones(8, 2),
    }
    assert str(lora.fit_lora(state | other, parts.unet)) == "4 of 5 layers fit (not text_encoder.layers.0.q_proj)"
    words = r"expected a LoRA for this UNet \(layers such as .*to_q\), got none of {} that fits \({}"
    with pytest.raises(ValueError, match=words.format(1, r"text_encoder.layers.0.q_proj\); choose one that was trained on SDXL")):
        lora.fit_lora(other, parts.unet)
    narrow = {name: t[:, : t.shape[1] // 2] if ".lora_A" in name else t for name, t in state.items()}
    with pytest.raises(ValueError, match=words.format(4, "unet.down_blocks")):
        lora.fit_lora(narrow, parts.unet)


def test_lora_that_is_damaged_or_more(parts, diffusers_unet):
    state = foreign.peft_lora(diffusers_unet, foreign.PEFT_NAMINGS[0])
    first = next(iter(state))
    layer = first.removesuffix(".lora_A.weight")
    for broken in (
        {k: t for k, t in state.items() if k != first},
        state | {first: state[first][:1]},
        state | {first: torch.zeros(0, 64)},
        state | {first: torch.tensor(1.0)},
    ):
        with pytest.raises(ValueError, match="expected two factors of one rank for each layer"):
            lora.fit_lora(broken, parts.unet)
    with pytest.raises(ValueError, match="expected one number as alpha"):
        lora.fit_lora(state | {f"{layer}.alpha": torch.ones(3)}, parts.unet)
    with pytest.raises(ValueError, match="got DoRA"):
        lora.fit_lora(state | {f"{layer}.lora_magnitude_vector": torch.ones(3)}, parts.unet)
    fitted = lora.fit_lora(state, parts.unet)
    name = next(iter(fitted.layers))
    with pytest.raises(ValueError, match="expected a UNet of plain weights"):
        lora.merged(parts.unet | {name.removesuffix("weight") + "weight_scale": torch.ones(1)}, fitted)


def test_a_network_that_peft_has_wrapped(parts, released, diffusers_unet):
    """peft calls a layer's own weight base_layer, and puts base_model.model. before all."""
    factors = foreign.peft_lora(diffusers_unet, "base_model.model.{layer}.lora_{factor}.default.weight")
    layers = [name.split(".lora_A")[0] for name in factors if ".lora_A" in name]
    state = {f"base_model.model.{name}": value for name, value in released.items()}
    for layer in layers:
        for leaf in ("weight", "bias"):
            if f"{layer}.{leaf}" in state:
                state[f"{layer}.base_layer.{leaf}"] = state.pop(f"{layer}.{leaf}")
    found = lora.with_own_lora(ck.split_state_dict(state | factors))
    assert found.note == "LoRA: 4 of 4 layers fit" and not found.lora
    assert equal(found.unet, lora.merged(parts.unet, lora.fit_lora(factors, parts.unet)))


def test_a_lora_is_no_faithdiff_file(diffusers_unet):
    for naming in foreign.PEFT_NAMINGS:
        state = foreign.peft_lora(diffusers_unet, naming)
        assert ck.is_lora(state)
        with pytest.raises(
            ValueError, match=r"got one that holds something else \(.*lora_A.*8 tensors in all\): a LoRA, for Load LoRA"
        ):
            ck.split_state_dict(state)
