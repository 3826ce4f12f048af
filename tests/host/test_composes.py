"""The aligned MODEL is an ordinary SDXL MODEL: what must not change a bit, and what must compose."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management as mm
import comfy.ops
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from nodes import KSampler
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference
from support.lora import made_up_lora
from support.sampling import CFG, SEED, STEPS, Loaded, align, encode, noise_like, predictions, sample

IMAGE = tiny.image(96, 128)


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def plain_latent(loaded):
    return align(loaded, IMAGE, strength=0.0)[1]


def node_result(node_output):
    return node_output[0]["samples"]


def faithdiff_sampler(model, latent, **changes):
    options = {
        "seed": SEED, "steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "ddim_uniform", "positive":
        tiny.conditioning(1),
        "negative": tiny.conditioning(2), "latent_image": latent, "denoise": 1.0, "tile_size": 1024, "tile_overlap": 0.5,
        "tile_batch": 0,
    }  # fmt: skip
    return node_result(FaithDiffSampler.execute(model, **{**options, **changes}).args)


def test_alignment_changes_the_picture(loaded, aligned):
    model, latent = aligned
    assert relative_difference(sample(model, latent), sample(loaded.model, latent)) > CHANGED


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde", "uni_pc"])
def test_strength_0_is_the_unpatched_model_bit_for_bit(loaded, sampler):
    model, latent = align(loaded, IMAGE, strength=0.0)
    results = [
        KSampler().sample(m, SEED, STEPS, CFG, sampler, "normal", tiny.conditioning(1), tiny.conditioning(2), latent)
        for m in (model, loaded.model)
    ]
    assert torch.equal(*(node_result(r) for r in results))


def test_strength_0_removes_an_earlier_alignment(loaded, aligned):
    model, latent = align(loaded, IMAGE, model=aligned[0], strength=0.0)
    assert torch.equal(sample(model, latent), sample(loaded.model, latent))


@pytest.mark.parametrize("denoise", [1.0, 0.5])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
@pytest.mark.parametrize("tile_size", [1024, 128, 0])
def test_faithdiff_sampler_is_ksampler_bit_for_bit(aligned, sampler, denoise, tile_size):
    model, latent = aligned
    ours = faithdiff_sampler(model, latent, sampler_name=sampler, denoise=denoise, tile_size=tile_size)
    hosts = KSampler().sample(
        model, SEED, STEPS, CFG, sampler, "ddim_uniform", tiny.conditioning(1), tiny.conditioning(2), latent, denoise=denoise
    )
    assert torch.equal(ours, node_result(hosts))


def test_sampler_custom_gives_the_same(aligned):
    model, latent = aligned
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", STEPS)
    custom = SamplerCustom.execute(
        model, True, SEED, CFG, tiny.conditioning(1), tiny.conditioning(2), comfy.samplers.sampler_object("euler"), sigmas, latent
    )
    assert torch.equal(node_result(custom.args), sample(model, latent))


@pytest.mark.parametrize("images", [3, 1])
def test_batch_of_three_is_three_single_runs(loaded, images):
    batch = torch.cat([tiny.image(96, 128, seed=i) for i in range(images)])
    features, _ = encode(loaded, batch)
    latent = {"samples": torch.randn(3, 4, 12, 16, generator=torch.Generator().manual_seed(3))}
    noise = noise_like(latent)
    model, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq").args
    together = sample(model, latent, noise=noise)
    for i in range(3):
        alone, _ = align(loaded, batch[i % images : i % images + 1])
        single = sample(alone, {"samples": latent["samples"][i : i + 1]}, noise=noise[i : i + 1])
        assert_close(together[i : i + 1], single, NETWORK)


def test_cfg_1_uses_only_the_positive_prompt(aligned):
    model, latent = aligned
    assert torch.equal(sample(model, latent, cfg=1.0), sample(model, latent, cfg=1.0, negative=tiny.conditioning(99)))
    # extrapolating with factor 1 is the conditional prediction, up to rounding; the host skips the other row at exactly 1
    assert_close(sample(model, latent, cfg=1.0), sample(model, latent, cfg=1.0 + 1e-6), NETWORK)


def test_prompts_of_77_and_154_tokens_together(aligned):
    model, latent = aligned
    long = tiny.conditioning(2, tokens=154)
    x, sigma = noise_like(latent), 3.0
    uncond, cond = predictions(model, x, sigma, tiny.conditioning(1), long)
    assert_close(predictions(model, x, sigma, tiny.conditioning(1), tiny.conditioning(2))[1], cond, NETWORK)
    assert_close(predictions(model, x, sigma, long, long)[1], uncond, NETWORK)


def test_two_positive_prompts_and_batches_of_prompts(aligned):
    model, latent = aligned
    twice = tiny.conditioning(1) + tiny.conditioning(1)  # the mean of two equal predictions
    assert_close(sample(model, latent, positive=twice), sample(model, latent), NETWORK)


def changed(features, box):
    """The same features with other values inside a box of cells (top, left, height, width)."""
    from dataclasses import replace

    other = features.features_BCHW.clone()
    top, left, height, width = box
    other[:, :, top : top + height, left : left + width] += torch.randn(
        1, other.shape[1], height, width, generator=torch.Generator().manual_seed(5)
    )
    return replace(features, features_BCHW=other)


def test_area_conds_see_the_features_of_their_area(loaded):
    features, latent = encode(loaded, IMAGE)
    area = (8, 8, 4, 8)  # height, width, top, left in cells
    positive = tiny.conditioning(1, area=area) + tiny.conditioning(3)
    x = noise_like(latent)

    def inside(f, prompt):
        model, _ = FaithDiffAlignLatent.execute(loaded.model, f, latent, 1.0, 0.0, 1.0, "lq").args
        return predictions(model, x, 3.0, prompt, tiny.conditioning(2))[1][:, :, 4:12, 8:16]

    only_area = tiny.conditioning(1, area=area)
    base = inside(features, only_area)
    assert torch.equal(inside(changed(features, (0, 0, 4, 16)), only_area), base)  # above the area: not seen
    assert torch.equal(inside(changed(features, (0, 0, 12, 8)), only_area), base)  # left of it: not seen
    assert relative_difference(inside(changed(features, (4, 8, 8, 8)), only_area), base) > CHANGED
    assert torch.isfinite(inside(features, positive)).all()


def test_masked_conds(aligned):
    model, latent = aligned
    left = torch.zeros(1, 96, 128)
    left[..., :64] = 1.0
    both = tiny.conditioning(1, mask=left, mask_strength=1.0) + tiny.conditioning(3, mask=1.0 - left, mask_strength=1.0)
    x = noise_like(latent)
    mixed = predictions(model, x, 3.0, both, tiny.conditioning(2))[1]
    parts = [predictions(model, x, 3.0, tiny.conditioning(seed), tiny.conditioning(2))[1] for seed in (1, 3)]
    assert_close(mixed[..., :8], parts[0][..., :8], NETWORK)
    assert_close(mixed[..., 8:], parts[1][..., 8:], NETWORK)


def with_lora(model):
    return comfy.sd.load_lora_for_models(model, None, made_up_lora(), 0.5, 0.0)[0]


def made_up_controlnet():
    config = {
        k: v
        for k, v in tiny.UNET_CONFIG.items()
        if k not in ("out_channels", "transformer_depth_output", "use_temporal_attention", "use_temporal_resblock")
    }
    net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.manual_cast, device=torch.device("cpu"))
    net.load_state_dict(tiny.random_weights(net.state_dict(), 21))
    return comfy.controlnet.ControlNet(
        net.eval().requires_grad_(False), load_device=mm.get_torch_device(), manual_cast_dtype=None
    )


def with_control(prompt, seed=0):
    hint = tiny.image(96, 128, seed=40).movedim(-1, 1)
    control = made_up_controlnet().set_cond_hint(hint, 0.7, (0.0, 1.0))
    return [[c, {**options, "control": control, "control_apply_to_uncond": True}] for c, options in prompt]


def test_lora_before_or_after_alignment(loaded, aligned):
    before, latent = align(loaded, IMAGE, model=with_lora(loaded.model))
    after = with_lora(aligned[0])
    assert torch.equal(sample(before, latent), sample(after, latent))
    assert relative_difference(sample(after, latent), sample(aligned[0], latent)) > CHANGED


def test_lora_and_controlnet_in_the_same_run(loaded, aligned):
    model, latent = with_lora(aligned[0]), aligned[1]
    positive = with_control(tiny.conditioning(1))
    result = sample(model, latent, positive=positive)
    for fewer in (
        sample(model, latent),
        sample(aligned[0], latent, positive=positive),
        sample(with_lora(loaded.model), latent, positive=positive),
    ):
        assert relative_difference(result, fewer) > CHANGED  # each of the three is in the picture
    assert torch.equal(
        sample(loaded.model, latent), sample(load(str_path(loaded), "default")[0], latent)
    )  # and none stays behind


def str_path(loaded: Loaded) -> str:
    return loaded.faithdiff.encoder.cached_patcher_init[1][0]


def test_requeue_clone_unload_and_reload_leave_no_state(loaded, aligned):
    plain_before = sample(loaded.model, aligned[1])
    model, latent = aligned
    first = sample(model, latent)
    assert torch.equal(sample(model, latent), first)
    assert torch.equal(sample(model.clone(), latent), first)
    mm.unload_all_models()
    assert torch.equal(sample(model, latent), first)
    again, _ = align(loaded, IMAGE, model=model)  # aligned twice: replaced, not doubled
    assert torch.equal(sample(again, latent), first)
    fresh, _ = align(Loaded(*load(str_path(loaded))), IMAGE)
    assert torch.equal(sample(fresh, latent), first)
    assert torch.equal(sample(loaded.model, latent), plain_before)
    assert not loaded.model.wrappers.get("apply_model") and loaded.model.get_attachment("faithdiff") is None


def test_another_image_does_not_leak_into_the_next_run(loaded, aligned):
    model, latent = aligned
    first = sample(model, latent)
    other, _ = align(loaded, tiny.image(96, 128, seed=9))
    assert relative_difference(sample(other, latent), first) > CHANGED
    assert torch.equal(sample(model, latent), first)


def test_size_conditioning_is_not_left_to_the_prompt(aligned):
    model, latent = aligned
    told = tiny.conditioning(1, width=4096, height=64, crop_w=9, crop_h=9, target_width=10, target_height=10)
    assert torch.equal(sample(model, latent, positive=told), sample(model, latent))


def test_latent_start(loaded):
    features, _ = encode(loaded, IMAGE)
    given = {"samples": torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(3)), "batch_index": [5]}
    for start_from, expected in (("lq", given["samples"]), ("noise", torch.zeros(1, 4, 12, 16))):
        _, latent = FaithDiffAlignLatent.execute(loaded.model, features, given, 1.0, 0.0, 1.0, start_from).args
        assert torch.equal(latent["samples"], expected) and latent["batch_index"] == [5]


def seen_sigmas(loaded, start, end, strength=1.0, steps=10):
    """All sigmas of a run, and for each whether the prediction is the fully aligned one."""
    model, latent = align(loaded, IMAGE, start_percent=start, end_percent=end, strength=strength)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)[:-1]
    full, _ = align(loaded, IMAGE, strength=strength)
    x = noise_like(latent)
    acted = [
        torch.equal(
            predictions(model, x, s, tiny.conditioning(1), tiny.conditioning(2))[1],
            predictions(full, x, s, tiny.conditioning(1), tiny.conditioning(2))[1],
        )
        for s in sigmas
    ]
    return sigmas, acted, sampling


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.0, 0.5), (0.3, 0.7), (0.6, 1.0)])
def test_start_and_end_percent_act_only_between_them(loaded, start, end):
    sigmas, acted, sampling = seen_sigmas(loaded, start, end)
    expected = [sampling.percent_to_sigma(end) <= float(s) <= sampling.percent_to_sigma(start) for s in sigmas]
    assert acted == expected
    assert any(acted) and (all(acted) == (start == 0.0 and end == 1.0))


def test_outside_its_range_only_the_base_model_acts(loaded):
    """With the prompt told the sizes that FaithDiff Align Latent sets, the base model alone must give the same bits."""
    model, latent = align(loaded, IMAGE, start_percent=0.5)
    target = loaded.faithdiff.metadata.target_size_px
    told = {"width": 128, "height": 96, "target_width": target, "target_height": target}
    x, sigma = noise_like(latent), model.get_model_object("model_sampling").percent_to_sigma(0.2)
    prompts = tiny.conditioning(1, **told), tiny.conditioning(2, **told)
    for ours, plain in zip(predictions(model, x, sigma, *prompts), predictions(loaded.model, x, sigma, *prompts), strict=True):
        assert torch.equal(ours, plain)


def first_features(model, latent):
    """The UNet's first features after alignment, for one call."""
    seen = []

    def look(h, transformer_options):
        if transformer_options["block"] == ("input", 0):
            seen.append(h.clone())
        return h

    model = model.clone()
    model.set_model_input_block_patch(look)
    predictions(model, noise_like(latent), 3.0, tiny.conditioning(1), tiny.conditioning(2))
    return seen[0]


def test_mask_acts_only_where_it_is(loaded):
    mask = torch.zeros(96, 128)
    mask[:, 64:] = 1.0
    masked, latent = align(loaded, IMAGE, mask=mask)
    full, _ = align(loaded, IMAGE)
    base = first_features(loaded.model, latent)
    left, right = (..., slice(None, 8)), (..., slice(8, None))
    with_mask, without = first_features(masked, latent), first_features(full, latent)
    assert torch.equal(with_mask[left], base[left])
    assert torch.equal(with_mask[right], without[right])
    assert relative_difference(without[left], base[left]) > CHANGED
    half, _ = align(loaded, IMAGE, mask=torch.full((1, 48, 64), 0.5))  # of another size: stretched
    assert_close(first_features(half, latent) - base, 0.5 * (without - base), ONE_MODULE)


def test_strength_scales_what_is_added(loaded):
    latent = plain_latent(loaded)
    base, full = (first_features(m, latent) for m in (loaded.model, align(loaded, IMAGE)[0]))
    half = first_features(align(loaded, IMAGE, strength=0.5)[0], latent)
    assert_close(half - base, 0.5 * (full - base), ONE_MODULE)


def test_context_windows_of_a_batch_follow(loaded):
    """The host's own windows cut the batch of frames; the features must be cut with it."""
    import comfy.context_windows

    frames = torch.cat([tiny.image(64, 64, seed=i) for i in range(4)])
    features, latent = encode(loaded, frames)
    model, latent = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq").args
    windowed = model.clone()
    windowed.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=2, context_overlap=0, context_stride=1, closed_loop=False, dim=0,
    )  # fmt: skip
    comfy.context_windows.create_prepare_sampling_wrapper(windowed)
    assert_close(sample(windowed, latent), sample(model, latent), NETWORK)
