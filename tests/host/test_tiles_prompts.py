"""What is cut with a tile: masks, areas, prompts of a batch, hooks, inpainting conditions, size conditioning, features."""

from __future__ import annotations

import comfy.conds
import comfy.hooks
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference
from support.lora import made_up_lora
from support.sampling import STEPS, align, encode, noise_like, predictions, sample
from support.tiles import counted, official_starts, official_weights, tiled

IMAGE = tiny.image(104, 160)
CELLS = (13, 20)
TILES = [(top, left) for top in official_starts(13, 8, 0.5) for left in official_starts(20, 8, 0.5)]
POSITIVE, NEGATIVE, OTHER = tiny.conditioning(1), tiny.conditioning(2), tiny.conditioning(3)


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def predict(model, latent, positive, negative=NEGATIVE):
    """The conditional noise estimate at one sigma."""
    return predictions(model, noise_like(latent), 3.0, positive, negative)[1]


def blended(tile_prediction):
    """Restates the blend: `tile_prediction(top, left)` for every tile."""
    weights = official_weights(8, 8).float()
    summed, total = torch.zeros(1, 4, *CELLS), torch.zeros(CELLS)
    for top, left in TILES:
        summed[..., top : top + 8, left : left + 8] += tile_prediction(top, left) * weights
        total[top : top + 8, left : left + 8] += weights
    return summed / total


def half_masks():
    left = torch.zeros(1, 104, 160)
    left[..., :88] = 1.0  # cuts tiles in two
    return left, 1.0 - left


def test_masked_prompts_are_those_of_their_half(aligned):
    model, latent = tiled(aligned[0]), aligned[1]
    left, right = half_masks()
    both = tiny.conditioning(1, mask=left, mask_strength=1.0) + tiny.conditioning(3, mask=right, mask_strength=1.0)
    mixed = predict(model, latent, both)
    assert_close(mixed[..., :11], predict(model, latent, POSITIVE)[..., :11], NETWORK)
    assert_close(mixed[..., 11:], predict(model, latent, OTHER)[..., 11:], NETWORK)


def test_a_prompt_is_left_out_of_tiles_that_it_does_not_touch(aligned):
    model, latent = aligned
    left = torch.zeros(1, 104, 160)
    left[..., :24] = 1.0  # 3 cells: in the first column of tiles only
    counting, shapes = counted(tiled(model, batch=1))
    predict(counting, latent, tiny.conditioning(1, mask=left, mask_strength=1.0) + OTHER)
    rows = sum(shape[0] for shape in shapes)
    assert rows == 12 * 2 + 3  # negative and one positive for each of the 12 tiles, the other positive for 3


def test_nothing_is_where_no_prompt_is(aligned):
    """As without tiles, where the host divides 0 by next to nothing: the latent as it is."""
    model, latent = aligned
    left = torch.zeros(1, 104, 160)
    left[..., :24] = 1.0
    only_left = tiny.conditioning(1, mask=left, mask_strength=1.0)
    for m in (model, tiled(model)):
        x = noise_like(latent)
        eps = predict(m, latent, only_left)
        expected = x * (3.0**2 + 1) ** 0.5 / 3.0  # (x - denoised) / sigma with denoised 0
        assert_close(eps[..., 3:], expected[..., 3:], NETWORK)


def test_mask_strength_mixes_prompts(aligned):
    model, latent = tiled(aligned[0]), aligned[1]
    left = half_masks()[0]
    masked = tiny.conditioning(1, mask=left, mask_strength=0.5, strength=0.5)
    mixed = predict(model, latent, masked + tiny.conditioning(3, strength=0.75))
    expected = 0.25 * predict(model, latent, POSITIVE) + 0.75 * predict(model, latent, OTHER)
    assert_close(mixed[..., :11], expected[..., :11], NETWORK)


@pytest.mark.parametrize("area", [(8, 9, 3, 6), ("percentage", 0.6, 0.5, 0.25, 0.3), (13, 12, 0, 8)])
def test_area_prompts(aligned, area):
    """Each tile runs the prompt on its part of the area, weighted by the host's ramps of the whole area."""
    model, latent = aligned
    prompts = tiny.conditioning(1, area=area) + OTHER
    height, width, top, left = area if area[0] != "percentage" else (8, 10, 3, 6)
    ramp = comfy.samplers.get_area_and_mult(
        {"area": (height, width, top, left), "model_conds": {}, "uuid": 0}, torch.zeros(1, 1, *CELLS), torch.ones(1)
    ).mult
    weight = torch.zeros(CELLS)
    weight[top : top + height, left : left + width] = ramp[0, 0]

    def one_tile(y, x):
        box = (..., slice(y, y + 8), slice(x, x + 8))
        rest = on_box(model, latent, OTHER, (y, x), (y, x, 8, 8))
        bottom, right = min(y + 8, top + height), min(x + 8, left + width)
        inside = (max(y, top), max(x, left), bottom - max(y, top), right - max(x, left))
        if inside[2] <= 0 or inside[3] <= 0:
            return rest
        part = torch.zeros_like(rest)
        place = (..., slice(inside[0] - y, bottom - y), slice(inside[1] - x, right - x))
        part[place] = on_box(model, latent, POSITIVE, (y, x), inside)
        return (rest + part * weight[box]) / (1 + weight[box])

    assert_close(predict(tiled(model), latent, prompts), blended(one_tile), NETWORK)


def on_box(model, latent, prompt, crop, box):
    """The conditional noise estimate for a part of the latent, by a plain call of the network with the part's features."""
    top, left, height, width = box
    cut = (..., slice(top, top + height), slice(left, left + width))
    state = model.get_attachment("faithdiff")
    base, module = model.model, state.features.model.alignment.model
    numbers = (104, 160, *crop, 64, 64)
    y = torch.cat([prompt[0][1]["pooled_output"], *(base.embedder(torch.tensor([float(n)])) for n in numbers)], dim=1)
    embedded = module.embed(state.features.features_BCHW[cut])

    def add(h, options):
        return h + module(h, embedded) if options["block"] == ("input", 0) else h

    timestep = model.get_model_object("model_sampling").timestep(torch.tensor([3.0])).float()
    with torch.no_grad():
        return base.diffusion_model(
            noise_like(latent)[cut], timestep, context=prompt[0][0], y=y,
            transformer_options={"patches": {"input_block_patch": [add]}},
        )  # fmt: skip


def test_the_blend_is_the_restated_one(aligned):
    model, latent = aligned
    expected = blended(lambda y, x: on_box(model, latent, POSITIVE, (y, x), (y, x, 8, 8)))
    assert_close(predict(tiled(model), latent, POSITIVE), expected, NETWORK)


def test_the_alignment_mask_is_cut(loaded):
    mask = torch.rand(104, 160, generator=torch.Generator().manual_seed(1)).round()
    model, latent = align(loaded, IMAGE, mask=mask)
    next_to_none = torch.full((104, 160), 1e-9)  # one that is black all over is refused
    zero, full = align(loaded, IMAGE, mask=next_to_none)[0], align(loaded, IMAGE)[0]
    seen = predict(tiled(model), latent, POSITIVE)
    assert relative_difference(seen, predict(tiled(zero), latent, POSITIVE)) > CHANGED
    assert relative_difference(seen, predict(tiled(full), latent, POSITIVE)) > CHANGED
    left = torch.zeros(104, 160)
    left[:, :40] = 1.0
    half = align(loaded, IMAGE, mask=left)[0]
    # the rightmost tiles start at cell 12: they see none of the left
    assert_close(predict(tiled(half), latent, POSITIVE)[..., 16:], predict(tiled(zero), latent, POSITIVE)[..., 16:], NETWORK)


def test_batches_of_prompts_keep_their_order(loaded):
    """Two prompts for three images are repeated by the host as 0, 1, 0; so must they be for every tile."""
    features, _ = encode(loaded, IMAGE)
    latent = {"samples": torch.zeros(3, 4, *CELLS)}
    model, latent = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    two = tiny.conditioning(1, batch=2)
    together = predict(tiled(model, batch=5), latent, two)
    for i, row in enumerate((0, 1, 0)):
        one = [[two[0][0][row : row + 1], {"pooled_output": two[0][1]["pooled_output"][row : row + 1]}]]
        assert_close(together[i], predict(tiled(model, batch=12), latent, one)[i], NETWORK)


def test_cfg_1_runs_only_the_positive_prompt(aligned):
    model, latent = aligned
    counting, shapes = counted(tiled(model, batch=3))
    result = sample(counting, latent, cfg=1.0)
    assert shapes == [(3, 4, 8, 8)] * (4 * STEPS)
    assert_close(result, sample(tiled(model), latent, cfg=1.0 + 1e-6), NETWORK)


def test_lora_hook_on_one_prompt(aligned):
    model, latent = aligned
    hooks = comfy.hooks.create_hook_lora(made_up_lora(), strength_model=0.5, strength_clip=0.0)
    hooked = [[c, {**o, "hooks": hooks}] for c, o in POSITIVE]
    with_lora = comfy.sd.load_lora_for_models(model, None, made_up_lora(), 0.5, 0.0)[0]
    assert_close(predict(tiled(model), latent, hooked), predict(tiled(with_lora), latent, POSITIVE), NETWORK)


def test_a_prompt_encoded_in_mid_run(aligned):
    """Perp-Neg's empty prompt comes without our map; with tiles it must see the tile's features and sizes all the same."""
    model, latent = aligned

    def guided(model):
        guider = Guider_PerpNeg(model)
        guider.set_conds(POSITIVE, NEGATIVE, OTHER)
        guider.set_cfg(4.0, 1.0)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", 2)
        euler = comfy.samplers.sampler_object("euler")
        return guider.sample(noise_like(latent), latent["samples"], euler, sigmas, disable_pbar=True, seed=7)

    assert torch.equal(guided(tiled(model, 0)), guided(model))
    sizes = torch.stack([size_numbers(model.model, 104, 160, top, left, 64, 64) for top, left in TILES])
    seen: list[torch.Tensor] = []

    def look(executor, *args, **kwargs):
        seen.extend(kwargs["y"][:, 32:])
        return executor(*args, **kwargs)

    looking = tiled(model, batch=7)
    looking.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "look", look)
    assert_close(guided(tiled(model, batch=1)), guided(looking), NETWORK)
    # Two steps of three prompts, each with every tile once: what was seen, and the row of the table that is nearest to it.
    nearest = torch.cdist(torch.stack(seen).double(), sizes.double()).min(dim=1)
    assert nearest.indices.bincount().tolist() == [2 * 3] * len(TILES)
    assert nearest.values.max() < ONE_MODULE * sizes.norm(dim=1).max()


def seen_at_the_network(model, latent, name, **options):
    """What reaches the network as `name`, row by row, with the place of each row's tile."""
    seen = []

    def look(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        value = c_concat if name == "c_concat" else kwargs[name]
        seen.extend(value)
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "look", look)
    sample(model, latent, steps=1, cfg=1.0, **options)
    return torch.stack(seen)


def test_a_map_of_another_pack_is_cut_and_everything_else_passed_on(aligned):
    model, latent = aligned
    whole, short = torch.randn(1, 5, *CELLS), torch.randn(1, 3, 4, 4)

    def add(executor, guider, *args, **kwargs):
        for conds in guider.conds.values():
            for cond in conds:
                cond["model_conds"]["their_map"] = comfy.conds.CONDNoiseShape(whole)
                cond["model_conds"]["their_list"] = comfy.conds.CONDList([whole, short])
                cond["model_conds"]["their_number"] = comfy.conds.CONDConstant(3)
        return executor(guider, *args, **kwargs)

    model = tiled(model, batch=4)
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "add", add)
    rows = seen_at_the_network(model, latent, "their_map")
    for row, (top, left) in zip(rows, TILES, strict=True):
        assert torch.equal(row, whole[0, :, top : top + 8, left : left + 8])


def size_numbers(base, *numbers):
    """The network's own embedding of them, one at a time; in a run all six are embedded at once."""
    return torch.cat([base.embedder(torch.tensor([float(n)])) for n in numbers], dim=1)[0]


def test_size_conditioning_of_each_tile(aligned):
    model, latent = aligned
    rows = seen_at_the_network(tiled(model, batch=5), latent, "y")
    for row, (top, left) in zip(rows, TILES, strict=True):
        assert_close(row[32:], size_numbers(model.model, 104, 160, top, left, 64, 64), ONE_MODULE)


def test_without_alignment_only_the_crop_moves_in_pixels(loaded, aligned):
    told = tiny.conditioning(1, width=200, height=300, crop_w=3, crop_h=5, target_width=400, target_height=500)
    for model in (loaded.model, align(loaded, IMAGE, strength=0.0)[0]):
        rows = seen_at_the_network(tiled(model, batch=5), aligned[1], "y", positive=told)
        for row, (top, left) in zip(rows, TILES, strict=True):
            assert_close(row[32:], size_numbers(model.model, 300, 200, 5 + 8 * top, 3 + 8 * left, 500, 400), ONE_MODULE)


def test_strength_0_tiles_like_the_base_model(loaded, aligned):
    model, latent = align(loaded, IMAGE, strength=0.0)
    assert torch.equal(sample(tiled(model), latent), sample(tiled(loaded.model), latent))
    assert relative_difference(sample(tiled(model), latent), sample(tiled(aligned[0]), latent)) > CHANGED


def test_inpainting_by_a_noise_mask(aligned):
    model, latent = aligned
    mask = torch.zeros(1, 1, *CELLS)
    mask[..., 6:15] = 1.0
    result = sample(tiled(model), latent, noise_mask=mask)
    assert_close(result[..., :6], latent["samples"][..., :6], NETWORK)
    assert relative_difference(result[..., 6:15], latent["samples"][..., 6:15]) > CHANGED


def test_gligen_is_refused_only_where_there_are_tiles(aligned):
    model, latent = aligned

    class Gligen:
        model = property(lambda self: self)

        def set_position(self, *args):
            return lambda x, options: x

        set_empty = set_position

    boxed = tiny.conditioning(1, gligen=("position", Gligen(), []))
    conds = [[c, o] for c, o in boxed]
    with pytest.raises(ValueError, match="prompts without GLIGEN for sampling in tiles, got one with; set tile_size to 0"):
        run_with(tiled(model), latent, conds)
    run_with(tiled(model, 0), latent, conds)


def run_with(model, latent, positive):
    """One prediction with GLIGEN put on after the host has loaded what a real one would bring."""

    def add(executor, guider, *args, **kwargs):
        guider.conds["positive"][0]["gligen"] = positive[0][1]["gligen"]
        return executor(guider, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "gligen", add)
    return sample(model, latent, steps=1)
