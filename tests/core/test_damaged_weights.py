"""Weights that lack something, or have it in another shape: one message that names it, before anything is built."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.architecture import alignment_sizes, lq_encoder_sizes, unet_sizes
from comfyui_faithdiff.faithdiff_core.files import checkpoint as ck
from comfyui_faithdiff.faithdiff_core.files import checks
from comfyui_faithdiff.faithdiff_core.files.keymap import ldm_to_diffusers
from support import tiny

SCALAR, ONE = torch.zeros(()), torch.zeros(1)
MANY = [*((0, layer) for layer in range(50)), *((level, 0) for level in range(50))]


@pytest.fixture(scope="module")
def parts():
    return tiny.made_up_parts()


def without(state, *starts):
    return {k: t for k, t in state.items() if not k.startswith(starts)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: without(s, "conv_in.weight"),
            "expected the weights of an LQ encoder, got a file without a usable conv_in.weight;",
        ),
        (lambda s: {**s, "conv_in.weight": SCALAR}, "without a usable weight of the right shape;"),
        (lambda s: without(s, "down_blocks."), "without its down_blocks;"),
        (
            lambda s: {**s, **{f"down_blocks.{i}.resnets.{j}.conv1.weight": ONE for i, j in MANY}},
            r"got \d+ for 50 levels of 50 layers; get the file again",
        ),
    ],
    ids=["no first layer", "first layer without sides", "no levels", "2500 layers by 99 names"],
)
def test_lq_encoder(parts, change, message):
    with pytest.raises(ValueError, match=message):
        lq_encoder_sizes(change(parts.lq_encoder), {})


def test_lq_encoder_groups_that_do_not_divide(parts):
    with pytest.raises(ValueError, match=r"expected norm_groups to divide the encoder's widths \(32, 32, 64, 64\), got 24"):
        lq_encoder_sizes(parts.lq_encoder, {"lq_encoder": {"norm_groups": 24}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: without(s, "proj_out."),
            "expected the weights of an alignment module, got a file without a usable proj_out.weight;",
        ),
        (lambda s: {**s, "proj_out.weight": SCALAR}, "without a usable weight of the right shape;"),
    ],
    ids=["no last layer", "last layer without sides"],
)
def test_alignment(parts, change, message):
    with pytest.raises(ValueError, match=message):
        alignment_sizes(change(parts.alignment), {})


def test_alignment_heads_that_do_not_divide(parts):
    with pytest.raises(ValueError, match=f"expected num_heads to divide the token width {2 * tiny.WIDTH}, got 3"):
        alignment_sizes(parts.alignment, {"alignment": {"num_heads": 3}})


@pytest.mark.parametrize("first", [None, torch.zeros(64, 4)], ids=["none", "of two sides"])
def test_unet_without_a_first_layer(parts, first):
    state = without(parts.unet, "input_blocks.0.0.")
    with pytest.raises(ValueError, match="got a file without a usable input_blocks.0.0.weight; get the file again"):
        unet_sizes(state if first is None else {**state, "input_blocks.0.0.weight": first}, {})


def test_an_adapter_is_no_full_file(parts):
    with pytest.raises(ValueError, match="expected a UNet for the full layout, got an adapter;"):
        ck.assemble_full(replace(parts, unet=None))


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        (lambda s: without(s, "blocks.1.to_out.bias"), "blocks.1.to_out.bias"),
        (lambda s: {**s, "blocks.1.to_out.weight": torch.zeros(3, 5)}, "blocks.1 of the right shape"),
    ],
    ids=["missing", "of another shape"],
)
def test_folding_what_is_not_there(parts, change, lacking):
    with pytest.raises(ValueError, match=f"got a file without its {lacking}; get the file again"):
        ck.alignment_state_for(change(parts.alignment), "pointwise", folded=True)


@pytest.mark.parametrize("shape", [(), (7, 4), (8, 4)])  # 8: thirds, and not halves or quarters
def test_released_attention_of_another_shape(parts, shape):
    released = ck.assemble_released(parts)
    fused = next(k for k in released if k.endswith("attn.in_proj_weight"))
    with pytest.raises(ValueError, match=f"expected {fused} to hold query, key and value, got shape {re.escape(str(shape))};"):
        ck.split_state_dict({**released, fused: torch.zeros(shape)})


def test_tensors_of_no_known_place(parts):
    names = ldm_to_diffusers(parts.unet)
    in_diffusers = {names[k]: t for k, t in parts.unet.items()}
    adapter = ck.assemble_adapter(parts)
    for unet in (in_diffusers | {"down_blocks.0.resnets.0.surprise": SCALAR}, {"surprise": SCALAR}):
        with pytest.raises(
            ValueError, match=r"got 1 further tensors \(.*surprise\); the file is damaged or not a FaithDiff file"
        ):
            ck.split_state_dict({**unet, **adapter})


def test_both_shapes_of_a_long_name_are_told():
    name = "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"
    with pytest.raises(ValueError) as refused:
        checks.check_state({name: torch.zeros(640, 640)}, {name: torch.zeros(320, 640)}, "UNet")
    assert f"1 of another shape ({name} (320, 640) instead of (640, 640)); the file" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (ck.ENCODER_PREFIX + "conv_in.bias", (0,)),
        (ck.RELEASED_ENCODER_PREFIX + "conv_in.bias", (0,)),
        (ck.ALIGNMENT_PREFIX + "proj_out.bias", (0,)),
        ("v_pred", (0, 10**9)),
    ],
)
def test_empty_tensors_are_refused(parts, name, shape):
    with pytest.raises(ValueError, match=r"^expected weights in \S+, got an empty tensor; the file is damaged, get it again$"):
        ck.split_state_dict({**ck.assemble_full(parts), name: torch.empty(shape)})


def test_empty_lists_are_marks(parts):
    marked = ck.split_state_dict({**ck.assemble_full(parts), ck.UNET_PREFIX + "v_pred": torch.empty(0)})
    assert marked.unet is not None and "v_pred" in marked.unet
