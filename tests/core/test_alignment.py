"""The alignment module against torch.nn.MultiheadAttention with the same weights, in both modes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comfyui_faithdiff.faithdiff_core.alignment import AlignmentModule, quick_gelu
from comfyui_faithdiff.faithdiff_core.architecture import AlignmentSizes
from comfyui_faithdiff.faithdiff_core.files.checkpoint import alignment_state_for
from support.compare import CHANGED, ONE_MODULE, assert_close, relative_difference
from support.tiny import random_weights

SIZES = AlignmentSizes(model_channels=32, feature_channels=64, mlp_channels=96, num_heads=8)


@pytest.fixture
def stored():
    return random_weights(AlignmentModule(SIZES, mode="spatial", operations=torch.nn, device="meta").state_dict(), 0)


def module_of(stored, mode, folded=False):
    module = AlignmentModule(SIZES, mode=mode, folded=folded, operations=torch.nn)
    module.load_state_dict(alignment_state_for(stored, mode, folded=folded), strict=True)
    return module.eval().requires_grad_(False)


def inputs(batch, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 32, 6, 10, generator=g), torch.randn(batch, 64, 6, 10, generator=g)


def reference(stored, h, embedded, batch_first, sizes=SIZES):
    """The published network, with torch's attention in the layout asked for."""
    x = torch.cat([h, embedded], dim=1).flatten(2).transpose(1, 2)
    for i in range(sizes.num_layers):
        w = {k.removeprefix(f"blocks.{i}."): t for k, t in stored.items() if k.startswith(f"blocks.{i}.")}
        mha = torch.nn.MultiheadAttention(sizes.token_channels, sizes.num_heads, batch_first=batch_first)
        mha.load_state_dict(
            {
                "in_proj_weight": torch.cat([w[f"to_{c}.weight"] for c in "qkv"]),
                "in_proj_bias": torch.cat([w[f"to_{c}.bias"] for c in "qkv"]),
                "out_proj.weight": w["to_out.weight"],
                "out_proj.bias": w["to_out.bias"],
            }
        )
        y = F.layer_norm(x, x.shape[-1:], w["norm1.weight"], w["norm1.bias"])
        x = x + mha(y, y, y, need_weights=False)[0]
        y = F.layer_norm(x, x.shape[-1:], w["norm2.weight"], w["norm2.bias"])
        x = x + F.linear(quick_gelu(F.linear(y, w["mlp_up.weight"], w["mlp_up.bias"])), w["mlp_down.weight"], w["mlp_down.bias"])
    return F.linear(x, stored["proj_out.weight"], stored["proj_out.bias"]).transpose(1, 2).reshape(h.shape)


@torch.no_grad()
def test_spatial_is_attention_over_one_image(stored):
    h, features = inputs(3)
    module = module_of(stored, "spatial")
    embedded = module.embed(features)
    assert_close(module(h, embedded), reference(stored, h, embedded, batch_first=True), ONE_MODULE)


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_pointwise_is_the_released_batch_attention(stored, folded, rows):
    """One image, or the two equal rows of guidance, through the official layout (sequence = batch)."""
    h, features = (t.expand(rows, -1, -1, -1) for t in inputs(1))
    module = module_of(stored, "pointwise", folded)
    embedded = module.embed(features)
    assert_close(module(h, embedded), reference(stored, h, embedded, batch_first=False), ONE_MODULE)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["pointwise", "spatial"])
def test_a_row_does_not_depend_on_the_others(stored, mode):
    h, features = inputs(3)
    module = module_of(stored, mode)
    together = module(h, module.embed(features))
    for i in range(3):
        alone = module(h[i : i + 1], module.embed(features[i : i + 1]))
        assert_close(together[i : i + 1], alone, ONE_MODULE)


@torch.no_grad()
def test_modes_differ(stored):
    h, features = inputs(1)
    spatial, pointwise = module_of(stored, "spatial"), module_of(stored, "pointwise")
    assert relative_difference(spatial(h, spatial.embed(features)), pointwise(h, pointwise.embed(features))) > CHANGED


@pytest.mark.parametrize("kwargs", [{"mode": "batch"}, {"mode": "spatial", "folded": True}])
def test_refuses_what_it_cannot_be(kwargs):
    with pytest.raises(ValueError, match="pointwise"):
        AlignmentModule(SIZES, operations=torch.nn, **kwargs)
