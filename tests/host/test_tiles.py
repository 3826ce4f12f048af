"""Tiled sampling: what must not change a bit, what must not depend on the tiles' batch, and the release's own loop."""

from __future__ import annotations

import os
from dataclasses import replace

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from comfyui_faithdiff.nodes.tile_model import FaithDiffTileModel
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.sampling import CFG, SEED, STEPS, align, encode, noise_like, sample
from support.tiers import all_long_but
from support.tiles import counted, official_loop, tiled

IMAGE = tiny.image(104, 160)  # 13 x 20 cells: 2 x 4 tiles of 8 cells at half overlap, the last ones moved back
PROMPTS = {"positive": tiny.conditioning(1), "negative": tiny.conditioning(2)}
SOLVERS = 5e-4
"""For solvers that take the network twice a step or add noise, which enlarges rounding: measured up to 9.3e-6 of the range."""


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def faithdiff_sampler(model, latent, **changes):
    options = {
        "seed": SEED, "steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "ddim_uniform", **PROMPTS,
        "latent_image": latent, "denoise": 1.0, "tile_size": 64, "tile_overlap": 0.5, "tile_batch": 0, **changes,
    }  # fmt: skip
    return FaithDiffSampler.execute(model, **options).args[0]["samples"]


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_one_tile_is_untiled_bit_for_bit(aligned, sampler):
    model, latent = aligned
    options = {"steps": STEPS, "cfg": CFG, "sampler_name": sampler, "scheduler": "normal", "seed": SEED, "disable_pbar": True}
    untiled, *in_one_tile = (
        comfy.sample.sample(m, noise_like(latent), **PROMPTS, latent_image=latent["samples"], **options)
        for m in (model, *(tiled(model, size_px) for size_px in (0, 160, 1024)))
    )
    for result in in_one_tile:
        assert torch.equal(result, untiled)


def test_tiles_change_the_picture_and_cover_it(aligned):
    model, latent = aligned
    counting, shapes = counted(tiled(model, batch=1))
    result = sample(counting, latent)
    assert torch.isfinite(result).all() and relative_difference(result, sample(model, latent)) > CHANGED
    assert shapes == [(2, 4, 8, 8)] * (3 * 4 * STEPS)


@pytest.fixture(scope="module")
def tile_by_tile(aligned):
    return sample(tiled(aligned[0], batch=1), aligned[1])


@pytest.mark.parametrize("batch", [2, 4, 7, 64])
def test_the_latent_does_not_depend_on_the_tile_batch(aligned, tile_by_tile, batch):
    model, latent = aligned
    assert_close(sample(tiled(model, batch=batch), latent), tile_by_tile, NETWORK)


def test_tile_batches_are_of_nearly_one_size(aligned):
    model, latent = aligned
    counting, shapes = counted(tiled(model, batch=5))
    sample(counting, latent, steps=1)
    assert [shape[0] // 2 for shape in shapes] == [4, 4, 4]  # 12 tiles, at most 5 at once


@pytest.mark.parametrize("steps", all_long_but([4, 20], 4))
@pytest.mark.parametrize(
    ("size", "tile_px", "overlap"), [((104, 160), 64, 0.5), ((96, 72), 64, 0.25), ((64, 200), 96, 0.0), ((56, 136), 64, 0.75)]
)
def test_the_releases_loop(loaded, size, tile_px, overlap, steps):
    """It steps every tile and blends latents; ours blends predictions inside the step."""
    assert official_difference(loaded, tiny.image(*size), tile_px, overlap, steps) < NETWORK


def official_difference(loaded, image, tile_px, overlap, steps, prompts=None):
    features, latent = encode(loaded, image)
    model, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    negative, positive = prompts or (tiny.conditioning(2), tiny.conditioning(1))
    ours = sample(tiled(model, tile_px, overlap), latent, positive=positive, negative=negative, steps=steps)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)
    start = sampling.noise_scaling(sigmas[0], noise_like(latent), torch.zeros_like(latent["samples"]))
    plain = [(c[0][0], c[0][1]["pooled_output"]) for c in (negative, positive)]
    official = official_loop(loaded, features, start, plain, steps=steps, guidance=CFG, tile_px=tile_px, step_frac=1 - overlap)
    return relative_difference(ours, official)


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not os.environ.get("FAITHDIFF_LARGE_TESTS"), reason="minutes and 4 GB; set FAITHDIFF_LARGE_TESTS=1")
@pytest.mark.parametrize(("size", "tile_px", "overlap", "steps"), [((96, 128), 64, 0.5, 4), ((64, 104), 64, 0.25, 20)])
def test_the_releases_loop_at_vega_size(tmp_path, size, tile_px, overlap, steps):
    from comfyui_faithdiff.nodes.load_model import load
    from support import by_rule
    from support.sampling import Loaded

    torch.save(by_rule.released_by_rule(by_rule.VEGA_UNET), tmp_path / "FaithDiff.bin")
    vega = Loaded(*load(str(tmp_path / "FaithDiff.bin")))
    context, pooled = by_rule.input_by_rule("ctx", 2, 77, 2048), by_rule.input_by_rule("pooled", 2, 1280)
    prompts = [[[context[i : i + 1], {"pooled_output": pooled[i : i + 1]}]] for i in range(2)]
    difference = official_difference(vega, tiny.image(*size), tile_px, overlap, steps, prompts)
    print(f"Vega, {size} px, tile {tile_px}, overlap {overlap}, {steps} steps: {difference:.2e}")
    assert difference < 1e-3


def test_the_loop_would_see_other_size_conditioning(loaded):
    """Guards the tests above: the tile's own crop is in these numbers."""
    pixel = replace(loaded.faithdiff, metadata=replace(loaded.faithdiff.metadata, crop_units="pixel"))
    features, latent = encode(loaded._replace(faithdiff=pixel), IMAGE)
    in_pixels, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    features, _ = encode(loaded, IMAGE)
    in_cells, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    assert relative_difference(sample(tiled(in_pixels), latent), sample(tiled(in_cells), latent)) > CHANGED


def test_an_image_of_a_batch_is_what_it_is_alone(loaded):
    frames = torch.cat([tiny.image(104, 96, seed=i) for i in range(3)])
    features, latent = encode(loaded, frames)
    model, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    noise = noise_like(latent)
    together = sample(tiled(model, batch=4), latent, noise=noise)
    for i in range(3):
        features, one = encode(loaded, frames[i : i + 1])
        alone, _ = FaithDiffAlignLatent.execute(loaded.model, features, one, 1.0, 0.0, 1.0, "noise").args
        assert_close(together[i : i + 1], sample(tiled(alone), one, noise=noise[i : i + 1]), NETWORK)


def test_frames_in_one_tile_go_through_in_batches(loaded):
    frames = torch.cat([tiny.image(64, 64, seed=i) for i in range(5)])
    features, latent = encode(loaded, frames)
    model, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    counting, shapes = counted(tiled(model, 1024, batch=2))
    result = sample(counting, latent, steps=1)
    assert [shape[0] // 2 for shape in shapes] == [1, 2, 2]
    assert_close(result, sample(model, latent, steps=1), NETWORK)


def test_shared_noise_is_the_first_images(loaded):
    frames = torch.cat([IMAGE] * 3)
    features, latent = encode(loaded, frames)
    model, _ = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    shared, own = (faithdiff_sampler(model, latent, noise_mode=mode) for mode in ("shared", "per image"))
    for image in (shared[1], shared[2], own[0]):  # equal rows of one call: some kernels add up the last rows otherwise
        assert_close(image, shared[0], NETWORK)
    assert relative_difference(own[1], own[0]) > CHANGED
    given = {**latent, "batch_index": [4, 5, 6]}
    (result,) = FaithDiffSampler.execute(
        model, SEED, 1, CFG, "euler", "normal", *PROMPTS.values(), given, 1.0, 0, 0.5, 0, noise_mode="shared"
    ).args
    assert result["batch_index"] == [4, 5, 6]


def test_sampler_tile_model_and_custom_sampler_agree(aligned):
    model, latent = aligned
    ours = faithdiff_sampler(model, latent)
    (on_model,) = FaithDiffTileModel.execute(model, 64, 0.5, 0).args
    assert torch.equal(sample(on_model, latent), ours)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", STEPS)
    custom = SamplerCustom.execute(
        on_model, True, SEED, CFG, *PROMPTS.values(), comfy.samplers.sampler_object("euler"), sigmas, latent
    )
    assert torch.equal(custom.args[0]["samples"], ours)


def test_the_last_tile_settings_count(aligned):
    model, latent = aligned
    (twice,) = FaithDiffTileModel.execute(FaithDiffTileModel.execute(model, 96, 0.25, 3).args[0], 64, 0.5, 1).args
    assert torch.equal(sample(twice, latent), sample(tiled(model, 64, 0.5, 1), latent))
    assert torch.equal(faithdiff_sampler(twice, latent, tile_size=0), sample(model, latent))
    assert torch.equal(sample(model, latent), sample(align_again(model), latent))  # none stays behind


def align_again(model):
    clone = model.clone()
    assert clone.get_attachment("faithdiff_tiles") is None and not clone.wrappers.get("calc_cond_batch")
    return clone


@pytest.mark.parametrize("name", all_long_but(["heun", "dpmpp_2m_sde", "uni_pc", "euler_ancestral"], "heun", "dpmpp_2m_sde"))
def test_other_solvers(aligned, name):
    model, latent = aligned
    one, seven = (faithdiff_sampler(model, latent, sampler_name=name, tile_batch=batch) for batch in (1, 7))
    assert torch.isfinite(one).all()
    assert_close(seven, one, SOLVERS)


@pytest.mark.parametrize("value", [-8, 32, 100])
def test_tile_sizes_that_are_none(aligned, value):
    with pytest.raises(ValueError, match=f"tile_size 0 or a multiple of 8 px from 64, got {value}; use"):
        FaithDiffTileModel.execute(aligned[0], value, 0.5, 0)


def test_a_latent_that_is_no_image(aligned):
    video = {"samples": torch.zeros(1, 4, 1, 13, 20)}
    with pytest.raises(ValueError, match="expected an SDXL image latent"):
        sample(tiled(aligned[0]), video)


def test_other_settings_out_of_range(aligned):
    with pytest.raises(ValueError, match="tile_overlap in .0, 0.95., got 1.0"):
        FaithDiffTileModel.execute(aligned[0], 64, 1.0, 0)
    with pytest.raises(ValueError, match="tile_batch 0 or more, got -1"):
        FaithDiffTileModel.execute(aligned[0], 64, 0.5, -1)
