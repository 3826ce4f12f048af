"""Other nodes of the host on an aligned MODEL: guiders, prompts made in mid-run, compilation, other noise schedules, hooks."""

from __future__ import annotations

import comfy.hooks
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras import nodes_freelunch, nodes_model_advanced, nodes_pag, nodes_sag
from comfy_extras.nodes_custom_sampler import Guider_Basic, Guider_DualCFG
from comfy_extras.nodes_perpneg import Guider_PerpNeg, PerpNeg
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.lora import made_up_lora
from support.sampling import STEPS, align, noise_like, predictions, sample

IMAGE = tiny.image(96, 128)


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def guided(guider, model, latent):
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", STEPS)
    return guider.sample(
        noise_like(latent), latent["samples"], comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=7
    )


def test_basic_guider_is_cfg_1(aligned):
    model, latent = aligned
    guider = Guider_Basic(model)
    guider.set_conds(tiny.conditioning(1))
    assert torch.equal(guided(guider, model, latent), sample(model, latent, cfg=1.0))


def test_dual_cfg_guider_aligns_all_three_rows(aligned):
    """With equal prompts in both conditional places and factors 1 it is the plain conditional prediction."""
    model, latent = aligned
    guider = Guider_DualCFG(model)
    guider.set_conds(tiny.conditioning(1), tiny.conditioning(1), tiny.conditioning(2))
    guider.set_cfg(1.0, 1.0)
    assert_close(guided(guider, model, latent), sample(model, latent, cfg=1.0), NETWORK)


def test_a_prompt_encoded_in_mid_run_is_aligned_too(aligned):
    """The host's Perp-Neg node encodes its empty prompt inside the guidance function; its guider does so beforehand."""
    model, latent = aligned
    before = Guider_PerpNeg(model)
    before.set_conds(tiny.conditioning(1), tiny.conditioning(2), tiny.conditioning(3, width=999, target_width=5))
    before.set_cfg(3.0, 1.0)
    patched = PerpNeg.execute(model, tiny.conditioning(3), 1.0).args[0]
    inside = comfy.samplers.CFGGuider(patched)
    inside.set_conds(tiny.conditioning(1), tiny.conditioning(2))
    inside.set_cfg(3.0)
    assert_close(guided(before, model, latent), guided(inside, model, latent), NETWORK)


@pytest.mark.parametrize(
    "patch",
    [
        lambda m: nodes_freelunch.FreeU_V2.execute(m, 1.3, 1.4, 0.9, 0.2),
        lambda m: nodes_sag.SelfAttentionGuidance.execute(m, 0.5, 2.0),
        lambda m: nodes_pag.PerturbedAttentionGuidance.execute(m, 3.0),
    ],
    ids=["FreeU", "SAG", "PAG"],
)
def test_model_patches_before_and_after(loaded, aligned, patch):
    model, latent = aligned
    after = sample(patch(model).args[0], latent)
    before = sample(align(loaded, IMAGE, model=patch(loaded.model).args[0])[0], latent)
    assert torch.equal(after, before) and relative_difference(after, sample(model, latent)) > CHANGED


def test_percent_follows_a_noise_schedule_that_comes_later(loaded):
    """ModelSampling nodes behind FaithDiff Align Latent change which sigma a percent is."""
    model, latent = align(loaded, IMAGE, end_percent=0.5)
    (other,) = nodes_model_advanced.ModelSamplingDiscrete().patch(model, "eps", zsnr=True)
    sampling = other.get_model_object("model_sampling")
    edge, x = sampling.percent_to_sigma(0.5), noise_like(latent)
    assert edge != model.get_model_object("model_sampling").percent_to_sigma(0.5)
    full = align(loaded, IMAGE)[0]
    (full,) = nodes_model_advanced.ModelSamplingDiscrete().patch(full, "eps", zsnr=True)
    prompts = tiny.conditioning(1), tiny.conditioning(2)
    for factor, acts in ((1.01, True), (0.99, False)):
        ours, whole = (predictions(each, x, edge * factor, *prompts)[1] for each in (other, full))
        assert torch.equal(ours, whole) if acts else relative_difference(ours, whole) > CHANGED


@pytest.mark.long
def test_compiled_as_the_hosts_node_does(loaded):
    """The host drops all guards on transformer_options, so what the patch reads must not change what is compiled: here it acts
    in the first half of the steps only."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch._dynamo.reset()
    model, latent = align(loaded, IMAGE, end_percent=0.5)
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict})
    assert_close(sample(compiled, latent), sample(model, latent), NETWORK)


def test_lora_hook_on_one_prompt(loaded, aligned):
    """Prompts with different hooks run apart; each must bring its part of the map."""
    model, latent = aligned
    hooks = comfy.hooks.create_hook_lora(made_up_lora(), strength_model=0.5, strength_clip=0.0)
    hooked = [[c, {**o, "hooks": hooks}] for c, o in tiny.conditioning(1)]
    x, sigma = noise_like(latent), 3.0
    uncond, cond = predictions(model, x, sigma, hooked, tiny.conditioning(2))
    with_lora = comfy.sd.load_lora_for_models(model, None, made_up_lora(), 0.5, 0.0)[0]
    assert_close(cond, predictions(with_lora, x, sigma, tiny.conditioning(1), tiny.conditioning(2))[1], NETWORK)
    assert_close(uncond, predictions(model, x, sigma, tiny.conditioning(1), tiny.conditioning(2))[0], NETWORK)


def test_a_wandering_tiler_does_not_fill_the_memory(loaded, monkeypatch):
    from comfyui_faithdiff.faithdiff_core.geometry import Box
    from comfyui_faithdiff.nodes.alignment import patch as alignment_patch

    tile_bytes = tiny.WIDTH * 8 * 8 * 4
    monkeypatch.setattr(alignment_patch, "MAX_EMBEDDINGS_BYTES", 10 * tile_bytes)
    embeddings = alignment_patch.Embeddings(torch.randn(1, tiny.ALIGNMENT.feature_channels, 12, 16))
    module, like = loaded.faithdiff.alignment.model, torch.zeros(1, tiny.WIDTH, 8, 8)
    for i in range(40):
        assert embeddings.part(module, 0, Box(i % 4, i % 7, 8, 8), like).shape == (1, tiny.WIDTH, 8, 8)
    assert sum(kept.nbytes for kept in embeddings._kept.values()) == 10 * tile_bytes
    embeddings.clear()
    embeddings.part(module, 0, Box(0, 0, 8, 8), like)
    assert not embeddings._kept  # out of memory: nothing more is kept in this run
