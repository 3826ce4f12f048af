"""Loading: layouts, types, memory, and what the rest of the host makes of our files."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.files.checkpoint import assemble_released
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from comfyui_faithdiff.nodes.load_model import load
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.sampling import Loaded, align, sample

IMAGE = tiny.image(64, 64)


@pytest.fixture(scope="module")
def parts():
    return tiny.made_up_parts()


def picture(loaded):
    model, latent = align(loaded, IMAGE)
    return sample(model, latent)


def halved(parts):
    return replace(
        parts, **{name: {k: t.half() for k, t in getattr(parts, name).items()} for name in ("unet", "lq_encoder", "alignment")}
    )


def as_released_bin(parts, path: Path) -> Path:
    torch.save(assemble_released(parts), path)
    return path


def as_released_safetensors(parts, path: Path) -> Path:
    write_safetensors(path, assemble_released(parts), parts.metadata.to_header())
    return path


@pytest.mark.parametrize("mode", ["pointwise", "spatial"])
def test_every_layout_gives_the_same_picture(tmp_path, mode):
    """A pickle has no header, so what it lacks (head counts, size, mode) are the released values: made to be them here."""
    config = {"alignment": {"num_heads": 8}, "lq_encoder": {"norm_groups": 32}, "unet": {"num_head_channels": 64}}
    parts = tiny.made_up_parts(mode)
    parts = replace(parts, metadata=replace(parts.metadata, config=config, target_size_px=1024, crop_units="latent"))
    full = Loaded(*load(str(tiny.write_full(tmp_path / "full.safetensors", parts))))
    expected = picture(full)
    released = Loaded(*load(str(as_released_safetensors(parts, tmp_path / "released.safetensors"))))
    assert released.faithdiff.alignment.model.mode == mode
    assert_close(picture(released), expected, NETWORK)  # weights that start elsewhere in memory may be added up otherwise
    adapter = Loaded(*load(str(tiny.write_adapter(tmp_path / "adapter.safetensors", parts)), base_model=full.model))
    assert_close(picture(adapter), expected, NETWORK)
    if mode == "pointwise":
        assert_close(picture(Loaded(*load(str(as_released_bin(parts, tmp_path / "FaithDiff.bin"))))), expected, NETWORK)


def test_modes_differ(tmp_path, parts):
    spatial = tiny.write_full(tmp_path / "s.safetensors", tiny.made_up_parts("spatial"))
    pointwise = tiny.write_full(tmp_path / "p.safetensors", parts)
    assert relative_difference(picture(Loaded(*load(str(spatial)))), picture(Loaded(*load(str(pointwise))))) > CHANGED


def test_half_precision_files_are_held_in_half_and_give_their_own_numbers(tmp_path, parts):
    half = halved(parts)
    rounded = replace(
        half, **{n: {k: t.float() for k, t in getattr(half, n).items()} for n in ("unet", "lq_encoder", "alignment")}
    )
    a = Loaded(*load(str(tiny.write_full(tmp_path / "half.safetensors", half))))
    b = Loaded(*load(str(tiny.write_full(tmp_path / "rounded.safetensors", rounded))))
    assert {p.dtype for p in a.model.model.diffusion_model.parameters()} == {torch.float16}
    assert_close(picture(a), picture(b), NETWORK / 2)  # with weights that were not rounded it is 9.5e-4


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_fp8_holds_the_unet_only(tmp_path, parts, weight_dtype):
    path = tiny.write_full(tmp_path / "full.safetensors", parts)
    eight = Loaded(*load(str(path), weight_dtype))
    expected = torch.float8_e5m2 if weight_dtype.endswith("e5m2") else torch.float8_e4m3fn
    assert {p.dtype for p in eight.model.model.diffusion_model.parameters()} == {expected}
    for patcher in eight.faithdiff.get_models():
        assert all(p.dtype == torch.float32 for p in patcher.model.parameters())
    exact, coarse = picture(Loaded(*load(str(path)))), picture(eight)
    assert torch.isfinite(coarse).all() and 0 < (coarse - exact).abs().mean() < 0.3 * exact.std()


def test_fp8_adapter_weights_are_widened(tmp_path, parts):
    eight = replace(parts, alignment={k: t.to(torch.float8_e4m3fn) for k, t in parts.alignment.items()})
    loaded = Loaded(*load(str(tiny.write_full(tmp_path / "f.safetensors", eight))))
    assert all(p.dtype == torch.float32 for p in loaded.faithdiff.alignment.model.parameters())


def test_hosts_own_loader_finds_the_unet(tmp_path, parts):
    """Our full layout in the host's Load Diffusion Model; the host knows published sizes only, so the widths are Vega's on
    meta."""
    import comfy.model_detection
    from comfyui_faithdiff.faithdiff_core.files.checkpoint import assemble_full, split_state_dict
    from support import by_rule

    state = {k: torch.empty(s, device="meta") for k, s in by_rule.released_shapes(by_rule.VEGA_UNET).items()}
    full = assemble_full(split_state_dict(state))
    prefix = comfy.model_detection.unet_prefix_from_state_dict(full)
    assert type(comfy.model_detection.model_config_from_unet(full, prefix)).__name__ == "Segmind_Vega"


def test_reload_factories_make_equal_models(loaded):
    """The host calls these for further devices and for hooks under dynamic memory."""
    for patcher in (loaded.model, *loaded.faithdiff.get_models()):
        factory, args = patcher.cached_patcher_init
        for again in (factory(*args), factory(*args, disable_dynamic=True)):
            ours, theirs = patcher.model.state_dict(), again.model.state_dict()
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_safetensors_are_mapped_not_copied(tmp_path, parts):
    """Every UNet and encoder weight of a loaded file lies inside the file's own mapping."""
    path = tiny.write_full(tmp_path / "full.safetensors", parts)
    loaded = Loaded(*load(str(path)))
    mapped = [
        (int(a, 16), int(b, 16))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
        for a, b in [re.match(r"(\w+)-(\w+)", line).groups()]
    ]
    assert mapped
    for module in (loaded.model.model.diffusion_model, loaded.faithdiff.encoder.model):
        for name, p in module.named_parameters():
            assert any(a <= p.data_ptr() < b for a, b in mapped), name


def test_pickle_is_not_copied(tmp_path, parts, monkeypatch):
    """The tensors that the reader returned are the network's own."""
    from comfyui_faithdiff.nodes import load_model

    seen = set()

    def read(path):
        state, header = read_weights(path)
        seen.update(t.data_ptr() for t in state.values())
        return state, header

    read_weights = load_model.read_weights
    monkeypatch.setattr(load_model, "read_weights", read)
    loaded = Loaded(*load(str(as_released_bin(parts, tmp_path / "x.bin"))))
    assert all(p.data_ptr() in seen for p in loaded.model.model.diffusion_model.parameters())


def test_published_sizes_pass_through_the_hosts_detection():
    """SDXL, SSD-1B-like and Vega nets keep the host's own model class; the nano net falls back to SDXL."""
    import comfy.supported_models
    from comfyui_faithdiff.faithdiff_core.files.checkpoint import split_state_dict
    from comfyui_faithdiff.nodes.seam.unet_loader import _expected_state, _model_config
    from support import by_rule

    for config, name in ((by_rule.SDXL_UNET, "SDXL"), (by_rule.VEGA_UNET, "Segmind_Vega")):
        state = {k: torch.empty(s, device="meta") for k, s in by_rule.released_shapes(config).items()}
        unet = split_state_dict(state).unet
        model_config = _model_config(unet, {})
        assert type(model_config).__name__ == name
        model_config.set_inference_dtype(torch.float16, None)
        expected = _expected_state(model_config)
        assert {k: t.shape for k, t in expected.items()} == {k: t.shape for k, t in unet.items()}
    assert type(_model_config(tiny.unet_state(), {})) is comfy.supported_models.SDXL


def test_base_model_is_not_needed_for_a_full_file(tmp_path, parts, loaded, caplog):
    path = tiny.write_full(tmp_path / "full.safetensors", parts)
    model, _ = load(str(path), base_model=loaded.model)
    assert model.model is not loaded.model.model


def test_loader_lists_both_folders_and_fingerprints_the_file(tmp_path, tiny_file):
    import folder_paths
    from comfyui_faithdiff.nodes.load_model import FaithDiffLoadModel
    from comfyui_faithdiff.nodes.seam import folders

    folders.register()
    folder_paths.add_model_folder_path("faithdiff", str(tiny_file.parent))
    folder_paths.add_model_folder_path("diffusion_models", str(tmp_path))
    (tmp_path / "in_diffusion_models.safetensors").write_bytes(b"")
    names = folders.model_names()
    assert "tiny.safetensors" in names and "in_diffusion_models.safetensors" in names
    assert folders.weights_path("tiny.safetensors") == str(tiny_file)
    before = FaithDiffLoadModel.fingerprint_inputs("in_diffusion_models.safetensors")
    (tmp_path / "in_diffusion_models.safetensors").write_bytes(b"x")
    assert FaithDiffLoadModel.fingerprint_inputs("in_diffusion_models.safetensors") != before


def test_workflows_that_name_the_released_file_take_the_half_made_of_it(tmp_path):
    import folder_paths
    from comfyui_faithdiff.faithdiff_core.hub.catalogue import FILES
    from comfyui_faithdiff.nodes.load_model import FaithDiffLoadModel
    from comfyui_faithdiff.nodes.seam import folders

    released, half = FILES["faithdiff"].name, FILES["faithdiff"].half
    folders.register()
    folder_paths.add_model_folder_path("faithdiff", str(tmp_path))
    assert released not in folders.model_names()
    (tmp_path / half).touch()
    assert FaithDiffLoadModel.validate_inputs(released) is True
    assert folders.weights_path(released) == str(tmp_path / half)
    (tmp_path / released).touch()
    assert folders.model_names().count(released) == 1
    assert folders.weights_path(released) == str(tmp_path / released)


def quantised(unet, prefix):
    """fp8 attention weights with a scale each, and the header entry that names them."""
    state, layers = {}, {}
    for key, tensor in unet.items():
        state[prefix + key] = tensor
        if ".attn" in key and key.endswith(".weight") and tensor.ndim == 2:
            layer, scale = prefix + key.removesuffix(".weight"), tensor.abs().max() / 448  # the largest e4m3 number
            state[prefix + key] = (tensor / scale).to(torch.float8_e4m3fn)
            state[f"{layer}.weight_scale"] = scale.reshape(1)
            layers[layer] = {"format": "float8_e4m3fn"}
    return state, layers


@pytest.mark.parametrize("marks", ["in the header", "on the layers"])
def test_quantised_files_are_read_as_the_host_reads_them(tmp_path, parts, marks):
    import json

    from comfyui_faithdiff.faithdiff_core.files.checkpoint import UNET_PREFIX, assemble_adapter

    state, layers = quantised(parts.unet, UNET_PREFIX)
    header = parts.metadata.to_header()
    if marks == "in the header":
        header["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    else:
        for layer, options in layers.items():
            state[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(options).encode()), dtype=torch.uint8)
    path = tmp_path / "quantised.safetensors"
    write_safetensors(path, {**state, **assemble_adapter(parts)}, header)
    coarse = picture(Loaded(*load(str(path))))
    exact = picture(Loaded(*load(str(tiny.write_full(tmp_path / "exact.safetensors", parts)))))
    assert 0 < (coarse - exact).norm() / exact.norm() < 0.1
    del state[next(k for k in state if k.endswith("attn1.to_out.0.bias"))]
    write_safetensors(path, {**state, **assemble_adapter(parts)}, header)
    with pytest.raises(ValueError, match="1 missing"):
        load(str(path))


def test_prediction_markers_reach_the_host(tmp_path, parts):
    import comfy.model_base

    marked = tiny.with_unet(parts, v_pred=torch.zeros(0))
    model, _ = load(str(tiny.write_full(tmp_path / "v.safetensors", marked)))
    assert model.model.model_type == comfy.model_base.ModelType.V_PREDICTION


def test_fp32_unet_flag_is_the_hosts_to_decide(tmp_path, parts, monkeypatch):
    """On a device that computes in fp16, `--fp32-unet` must win over the file's type. The device's answer is simulated."""
    import comfy.model_management as mm
    from comfyui_faithdiff.nodes.seam.unet_loader import _default_dtype

    supported = [torch.float16, torch.bfloat16, torch.float32]
    assert _default_dtype(torch.float16, 10, supported) == torch.float16  # on the CPU: held in half, computed in fp32
    monkeypatch.setattr(mm, "should_use_fp16", lambda *a, **k: True)
    monkeypatch.setattr(mm.args, "fp32_unet", True)
    assert _default_dtype(torch.float16, 10, supported) == torch.float32
