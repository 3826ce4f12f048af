"""The official network's numbers, through the nodes and the host, for weights that anyone can make again by rule.

At the size of Segmind-Vega: 745 M parameters in the UNet, every extra module as released. See support/by_rule.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.files.checkpoint import alignment_state_for, assemble_full, split_state_dict
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from comfyui_faithdiff.nodes.load_model import load
from support import by_rule
from support.compare import NETWORK, ONE_MODULE, assert_close, relative_difference
from support.sampling import Loaded, align, encode, predictions
from support.tiers import all_long_but

OFFICIAL = Path(__file__).resolve().parents[1] / "data" / "official_vega.npz"
TIMESTEPS = (999, 500, 21)


@pytest.fixture(scope="module")
def official():
    with np.load(OFFICIAL) as arrays:
        return {k: torch.from_numpy(arrays[k]) for k in arrays}


@pytest.fixture(scope="module")
def released_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vega") / "FaithDiff.bin"
    torch.save(by_rule.released_by_rule(by_rule.VEGA_UNET), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module", params=["released .bin", pytest.param("our .safetensors", marks=pytest.mark.long)])
def official_loaded(request, released_file, tmp_path_factory):
    if request.param == "released .bin":
        return Loaded(*load(str(released_file)))
    parts = split_state_dict(torch.load(released_file, weights_only=True, mmap=True))
    ours = tmp_path_factory.mktemp("ours") / "FaithDiff.safetensors"
    write_safetensors(ours, assemble_full(parts), parts.metadata.to_header())
    return Loaded(*load(str(ours)))


def test_features(official_loaded, official):
    features, _ = encode(official_loaded, by_rule.image_by_rule().movedim(1, -1))
    assert_close(features.features_BCHW, official["feat"], NETWORK)


@pytest.mark.parametrize("timestep", all_long_but(TIMESTEPS, 500))
def test_predictions(official_loaded, official, timestep):
    model, _ = align(official_loaded, by_rule.image_by_rule().movedim(1, -1))
    context, pooled = by_rule.input_by_rule("ctx", 2, 77, 2048), by_rule.input_by_rule("pooled", 2, 1280)
    negative, positive = ([[context[i : i + 1], {"pooled_output": pooled[i : i + 1]}]] for i in range(2))
    sigma = model.get_model_object("model_sampling").sigmas[timestep]
    rows = predictions(model, by_rule.input_by_rule("x", 1, 4, 12, 16), sigma, positive, negative)
    assert_close(torch.cat(rows), official[f"eps_{timestep}"], NETWORK)


def test_the_alignment_is_seen_in_these_numbers(official_loaded, official):
    """Guards the tests above: without alignment the same inputs are far away."""
    context, pooled = by_rule.input_by_rule("ctx", 2, 77, 2048), by_rule.input_by_rule("pooled", 2, 1280)
    size = {"width": 128, "height": 96, "target_width": 1024, "target_height": 1024}
    negative, positive = ([[context[i : i + 1], {"pooled_output": pooled[i : i + 1], **size}]] for i in range(2))
    sigma = official_loaded.model.get_model_object("model_sampling").sigmas[500]
    rows = predictions(official_loaded.model, by_rule.input_by_rule("x", 1, 4, 12, 16), sigma, positive, negative)
    assert relative_difference(torch.cat(rows), official["eps_500"]) > 0.1  # a thousand times what those above let pass


def test_spatial_mode_against_torch_attention(released_file):
    """The released sizes with the header's word `spatial`, in the host, against torch.nn.MultiheadAttention(batch_first=True)."""
    extras = {
        k: t
        for k, t in torch.load(released_file, weights_only=True, mmap=True).items()
        if not k.startswith(("down_", "up_", "mid_"))
    }
    extras = {k: t for k, t in extras.items() if k.startswith(("denoise_encoder.", "condition_", "information_", "spatial_"))}
    parts = split_state_dict(extras, {"faithdiff.align_attention": "spatial"})
    from comfyui_faithdiff.nodes.seam.bundle import build_model

    module = build_model(parts, "").alignment.model
    from core.test_alignment import reference

    g = torch.Generator().manual_seed(0)
    h, features = torch.randn(2, 320, 12, 16, generator=g), torch.randn(2, 512, 12, 16, generator=g)
    with torch.no_grad():
        embedded = module.embed(features)
        stored = {k: t.float() for k, t in alignment_state_for(parts.alignment, "spatial", folded=False).items()}
        assert_close(module(h, embedded), reference(stored, h, embedded, batch_first=True, sizes=module.sizes), ONE_MODULE)


@pytest.mark.long
def test_spatial_predictions_against_diffusers(released_file, tmp_path):
    """The whole network in spatial mode, against diffusers' own UNet with torch's attention hooked in after conv_in."""
    from core.test_alignment import reference
    from diffusers import UNet2DConditionModel

    state = torch.load(released_file, weights_only=True)
    path = tmp_path / "spatial.safetensors"
    write_safetensors(path, state, {"faithdiff.align_attention": "spatial"})
    spatial = Loaded(*load(str(path)))
    parts = split_state_dict(state)
    image_BHWC, x = by_rule.image_by_rule().movedim(1, -1), by_rule.input_by_rule("x", 1, 4, 12, 16)
    context, pooled = by_rule.input_by_rule("ctx", 2, 77, 2048), by_rule.input_by_rule("pooled", 2, 1280)
    features, _ = encode(spatial, image_BHWC)

    unet = UNet2DConditionModel(**by_rule.VEGA_UNET)
    unet.load_state_dict({k: state[k].float() for k in unet.state_dict()})
    stored = {k: t.float() for k, t in parts.alignment.items()}
    module = spatial.faithdiff.alignment.model

    def add_alignment(_module, _inputs, h):
        embedded = module.embed(features.features_BCHW).expand(h.shape[0], -1, -1, -1)
        return h + reference(stored, h, embedded, batch_first=True, sizes=module.sizes)

    unet.conv_in.register_forward_hook(add_alignment)
    sizes = torch.tensor([[96.0, 128.0, 0.0, 0.0, 1024.0, 1024.0]] * 2)
    with torch.no_grad():
        added = {"text_embeds": pooled, "time_ids": sizes}
        expected = unet(x.expand(2, -1, -1, -1), torch.tensor(500), context, added_cond_kwargs=added).sample

    model, _ = align(spatial, image_BHWC)
    negative, positive = ([[context[i : i + 1], {"pooled_output": pooled[i : i + 1]}]] for i in range(2))
    sigma = model.get_model_object("model_sampling").sigmas[500]
    rows = torch.cat(predictions(model, x, sigma, positive, negative))
    assert_close(rows, expected, NETWORK)
