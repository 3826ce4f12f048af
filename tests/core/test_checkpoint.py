"""File layouts: names both ways, round trips, and what is said of files that are something else."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.architecture import alignment_sizes, lq_encoder_sizes, unet_sizes
from comfyui_faithdiff.faithdiff_core.files import checkpoint as ck
from comfyui_faithdiff.faithdiff_core.files import checks
from comfyui_faithdiff.faithdiff_core.files.keymap import diffusers_to_ldm, ldm_to_diffusers
from comfyui_faithdiff.faithdiff_core.files.metadata import FaithDiffMetadata, parse_metadata
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from safetensors import safe_open
from safetensors.torch import load_file
from support import by_rule, tiny

SSD_1B = {
    **by_rule.VEGA_UNET,
    "transformer_layers_per_block": [[0, 0], [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
NANO = {
    **by_rule.VEGA_UNET,
    "block_out_channels": (64, 128, 192),
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 1, 1],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "attention_head_dim": [1, 2, 3],
    "cross_attention_dim": 64,
    "projection_class_embeddings_input_dim": 1600,
}


@pytest.fixture(scope="module")
def parts():
    return tiny.made_up_parts()


def diffusers_names(config):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config).state_dict()


@pytest.mark.parametrize("config", [by_rule.SDXL_UNET, by_rule.VEGA_UNET, SSD_1B, NANO], ids=["sdxl", "vega", "ssd-1b", "nano"])
def test_every_unet_name_both_ways(config):
    """Against the host's own map, which is made from its configuration of the same net."""
    import comfy.model_detection
    import comfy.utils

    names = diffusers_names(config)
    ours = diffusers_to_ldm(names)
    assert set(ours) == set(names) and len(set(ours.values())) == len(names)
    assert ldm_to_diffusers(ours.values()) == {v: k for k, v in ours.items()}
    host_config = comfy.model_detection.detect_unet_config({ours[k]: t for k, t in names.items()}, "")
    host = {k: v for k, v in comfy.utils.unet_to_diffusers(host_config).items() if k in names}
    assert ours == host


def test_sizes_are_read_from_the_released_shapes():
    state = {k: torch.empty(s, device="meta") for k, s in by_rule.released_shapes(by_rule.VEGA_UNET).items()}
    parts = ck.split_state_dict(state)
    assert lq_encoder_sizes(parts.lq_encoder, {}).block_out_channels == (128, 256, 512, 512)
    assert alignment_sizes(parts.alignment, {}).token_channels == 640
    sizes = unet_sizes(parts.unet, {})
    assert (sizes.model_channels, sizes.context_channels, sizes.adm_channels) == (320, 2048, 2816)
    assert parts.metadata == FaithDiffMetadata()
    assert (
        len(parts.lq_encoder) == 102 and sum(t.numel() for t in parts.lq_encoder.values()) == 34_125_696
    )  # faithful to the release


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("assemble", [ck.assemble_full, ck.assemble_released])
def test_round_trip_keeps_every_tensor(parts, assemble):
    back = ck.split_state_dict(assemble(parts), parts.metadata.to_header())
    assert equal(back.unet, parts.unet) and equal(back.lq_encoder, parts.lq_encoder) and equal(back.alignment, parts.alignment)
    assert back.metadata == parse_metadata(parts.metadata.to_header())


def test_adapter_has_no_unet(parts):
    back = ck.split_state_dict(ck.assemble_adapter(parts))
    assert back.unet is None and equal(back.alignment, parts.alignment)


def test_released_names_without_queries_get_zeros(parts):
    lean = {k: t for k, t in parts.alignment.items() if ".to_q." not in k and ".to_k." not in k}
    state = ck.assemble_released(
        ck.FaithDiffParts(unet=None, lq_encoder=parts.lq_encoder, alignment=lean, metadata=parts.metadata)
    )
    width = tiny.ALIGNMENT.token_channels
    fused = state["information_transformer_layes.0.attn.in_proj_weight"]
    assert (
        fused.shape == (3 * width, width)
        and not fused[: 2 * width].any()
        and torch.equal(fused[2 * width :], lean["blocks.0.to_v.weight"])
    )


def test_other_models_of_a_checkpoint_are_left_out(parts):
    state = {
        **ck.assemble_full(parts),
        "first_stage_model.encoder.conv_in.weight": torch.zeros(1),
        "conditioner.embedders.0.x": torch.zeros(1),
    }
    assert equal(ck.split_state_dict(state).unet, parts.unet)


def test_metadata_decides_the_mode_in_either_layout(parts):
    header = {"faithdiff.align_attention": "spatial", "faithdiff.crop_units": "pixel", "faithdiff.target_size_px": "512"}
    for assemble in (ck.assemble_released, ck.assemble_full):
        told = ck.split_state_dict(assemble(parts), header).metadata
        assert (told.align_attention, told.crop_units, told.target_size_px) == ("spatial", "pixel", 512)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"faithdiff.format": "2"}, "update the pack"),
        ({"faithdiff.align_attention": "batch"}, "pointwise, spatial, got 'batch'"),
        ({"faithdiff.crop_units": "inch"}, "latent, pixel"),
        ({"faithdiff.target_size_px": "-1"}, "positive whole number, got '-1'"),
        ({"faithdiff.config": "[1]"}, "JSON object"),
        ({"faithdiff.config": '{"alignment": 3}'}, "JSON object"),
        ({"faithdiff.config": "{"}, "JSON object"),
    ],
)
def test_bad_metadata_is_refused(header, message):
    with pytest.raises(ValueError, match=message):
        parse_metadata(header)


def test_config_that_contradicts_the_weights_is_refused(parts):
    with pytest.raises(ValueError, match=f"alignment.mlp_channels = 7 as faithdiff.config says, got {4 * tiny.WIDTH}"):
        alignment_sizes(parts.alignment, {"alignment": {"mlp_channels": 7}})
    with pytest.raises(ValueError, match="num_heads to divide"):
        alignment_sizes(parts.alignment, {"alignment": {"num_heads": 7}})
    assert alignment_sizes(parts.alignment, {"alignment": {"num_heads": 4, "of_a_later_version": 1}}).num_heads == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight"],
            "plain SDXL checkpoint.*base_model",
        ),
        (["down_blocks.0.x", "add_embedding.linear_1.weight"], "plain SDXL"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "SD 1.5"),
        (["some.lora_up.weight"], "holds something else .some.lora_up.weight"),
        ([], "something else"),
    ],
)
def test_foreign_files_are_named(keys, message):
    with pytest.raises(ValueError, match=message):
        ck.split_state_dict({k: torch.zeros(1) for k in keys})


def test_half_an_adapter_and_strangers_are_refused(parts):
    full = ck.assemble_full(parts)
    with pytest.raises(ValueError, match="none of the alignment module"):
        ck.split_state_dict({k: t for k, t in full.items() if not k.startswith(ck.ALIGNMENT_PREFIX)})
    with pytest.raises(ValueError, match="1 further tensors .stranger"):
        ck.split_state_dict({**full, "stranger": torch.zeros(1)})


def test_check_state_counts_what_is_wrong(parts):
    expected = parts.lq_encoder
    got = {k: t for k, t in expected.items() if k != "conv_in.bias"}
    got["conv_in.weight"] = torch.zeros(3)
    got["stranger"] = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"1 missing \(conv_in.bias\); 1 unexpected \(stranger\); 1 of another shape \(conv_in.weight \(3,\)"
    ):
        checks.check_state(expected, got, "LQ encoder")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_check_finite(bad, dtype):
    good = {"a": torch.full((3,), 60000.0).to(dtype), "b": torch.zeros(0, dtype=dtype), "n": torch.arange(3)}
    checks.check_finite(good, "UNet")
    with pytest.raises(ValueError, match="1 tensors .a."):
        checks.check_finite({**good, "a": torch.tensor([1.0, bad]).to(dtype)}, "UNet")


def test_writing_is_all_or_nothing(tmp_path, parts, monkeypatch):
    path = tmp_path / "x.safetensors"
    fused = torch.arange(12.0).reshape(6, 2)
    views = dict(zip("qkv", fused.chunk(3), strict=True))  # the format refuses shared storage; the writer must not
    write_safetensors(path, views, {"a": "b"})
    assert equal(load_file(path), views)
    with safe_open(path, "pt") as f:
        assert f.metadata() == {"a": "b"}
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode  # readable by whom the user's umask says
    (tmp_path / "any").unlink()
    before = path.read_bytes()
    monkeypatch.setattr(
        "comfyui_faithdiff.faithdiff_core.files.storage.os.replace",
        lambda *a: (_ for _ in ()).throw(OSError(28, "No space left")),
    )
    with pytest.raises(OSError, match="No space"):
        write_safetensors(path, {"a": torch.zeros(1)}, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
