"""Other nodes around and inside the tiles: context windows, other tilers, guiders, patches, compilation; and seams."""

from __future__ import annotations

import comfy.context_windows
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_freelunch, nodes_pag
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference
from support.sampling import STEPS, align, encode, noise_like, predictions, sample
from support.tiles import official_starts, tiled

IMAGE = tiny.image(104, 160)
POSITIVE, NEGATIVE = tiny.conditioning(1), tiny.conditioning(2)


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def windowed(model, dim, length, overlap=0):
    model = model.clone()
    model.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=length, context_overlap=overlap, context_stride=1, closed_loop=False, dim=dim,
    )  # fmt: skip
    comfy.context_windows.create_prepare_sampling_wrapper(model)
    return model


def test_context_windows_over_frames(loaded):
    """The host cuts the batch, we cut the frames."""
    features, latent = encode(loaded, torch.cat([tiny.image(104, 96, seed=i) for i in range(4)]))
    model, latent = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq").args
    assert_close(sample(windowed(tiled(model), 0, 2), latent), sample(tiled(model), latent), NETWORK)


def test_another_tiler_outside_of_ours(aligned):
    """One that cuts latent and conditions around the whole prediction, as the host's windows do over rows: our tiles are then
    those of its parts, and know where in the image they are."""
    model, latent = aligned
    seen = []

    def halves(executor, model, conds, x, timestep, options):
        outs = []
        for left in (0, 10):
            part = [
                c and [{**d, "model_conds": {k: cut(v, left) for k, v in d["model_conds"].items()}} for d in c] for c in conds
            ]
            outs.append(executor(model, part, x[..., left : left + 10], timestep, options))
        return [torch.cat(pair, dim=-1) for pair in zip(*outs, strict=True)]

    def cut(value, left):
        spatial = isinstance(value.cond, torch.Tensor) and value.cond.ndim == 4
        return type(value)(value.cond[..., left : left + 10]) if spatial else value

    def look(executor, *args, **kwargs):
        seen.extend(kwargs["y"][:, 32:])
        return executor(*args, **kwargs)

    outside = model.clone()
    outside.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "theirs", halves)
    outside = tiled(outside, batch=1)
    outside.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "look", look)
    assert torch.isfinite(sample(outside, latent, steps=1, cfg=1.0)).all()
    embedder = model.model.embedder
    places = [(y, x + left) for left in (0, 10) for y in official_starts(13, 8, 0.5) for x in official_starts(10, 8, 0.5)]
    for row, (top, left) in zip(seen, places, strict=True):
        expected = torch.cat([embedder(torch.tensor([float(n)])) for n in (104, 160, top, left, 64, 64)], dim=1)[0]
        assert_close(row, expected, ONE_MODULE)


def function_wrapper(cut_conditions):
    """A tiler in the slot around the network that cuts each of our tiles into quarters."""

    def quarters(apply, args):
        x, c = args["input"], args["c"]
        out = torch.zeros_like(x)
        for top in (0, 4):
            for left in (0, 4):
                box = (..., slice(top, top + 4), slice(left, left + 4))
                part = {k: v[box] if cut_conditions and isinstance(v, torch.Tensor) and v.ndim == 4 else v for k, v in c.items()}
                out[box] = apply(x[box], args["timestep"], **part)
        return out

    return quarters


def test_another_tiler_inside_of_ours(aligned):
    model, latent = aligned
    inside = tiled(model)
    inside.set_model_unet_function_wrapper(function_wrapper(cut_conditions=True))
    result = sample(inside, latent)
    assert torch.isfinite(result).all() and relative_difference(result, sample(tiled(model), latent)) > CHANGED
    blind = tiled(model)
    blind.set_model_unet_function_wrapper(function_wrapper(cut_conditions=False))
    with pytest.raises(ValueError, match="another node tiles or scales the latent"):
        sample(blind, latent)


def test_a_tiler_that_cuts_only_the_latent_around_ours(aligned):
    model, latent = aligned
    outside = model.clone()
    outside.add_wrapper_with_key(
        WrappersMP.CALC_COND_BATCH, "theirs",
        lambda executor, model, conds, x, timestep, options: executor(model, conds, x[..., :12], timestep, options),
    )  # fmt: skip
    with pytest.raises(ValueError, match="another node tiles or scales the latent"):
        sample(tiled(outside), latent)


def test_dual_guidance(aligned):
    model, latent = aligned

    def guided(model):
        guider = Guider_DualCFG(model)
        guider.set_conds(POSITIVE, tiny.conditioning(3), NEGATIVE)
        guider.set_cfg(4.0, 2.0)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", 2)
        euler = comfy.samplers.sampler_object("euler")
        return guider.sample(noise_like(latent), latent["samples"], euler, sigmas, disable_pbar=True, seed=7)

    assert torch.equal(guided(tiled(model, 0)), guided(model))
    one, many = guided(tiled(model, batch=1)), guided(tiled(model, batch=7))
    assert_close(many, one, NETWORK)


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(lambda m: nodes_freelunch.FreeU_V2.execute(m, b1=1.1, b2=1.2, s1=0.9, s2=0.2), id="FreeU"),
        pytest.param(lambda m: nodes_pag.PerturbedAttentionGuidance.execute(m, 2.0), id="PAG"),
    ],
)
def test_patches_of_the_network(aligned, patch):
    """PAG predicts once more behind the guidance, through the same tiles."""
    model, latent = aligned
    patched = patch(model).args[0]
    one, many = (sample(tiled(patched, batch=batch), latent, steps=1) for batch in (1, 7))
    assert_close(many, one, NETWORK)
    assert relative_difference(one, sample(tiled(model), latent, steps=1)) > CHANGED


@pytest.mark.long
def test_compiled_as_the_hosts_node_does(aligned):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch._dynamo.reset()
    model, latent = aligned
    compiled = tiled(model, batch=5)
    set_torch_compile_wrapper(model=compiled, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict})
    assert_close(sample(compiled, latent), sample(tiled(model, batch=5), latent), NETWORK)


def test_a_prediction_outside_of_a_run(aligned):
    """Without the run's state, as from a node that calls the host's functions itself; the settings are on the MODEL."""
    model, latent = aligned
    wanted = predictions(tiled(model), noise_like(latent), 3.0, POSITIVE, NEGATIVE)

    def forget(executor, guider, sigmas, extra_args, *args, **kwargs):
        options = {k: v for k, v in extra_args["model_options"]["transformer_options"].items() if k != "faithdiff_tiles"}
        return executor(
            guider, sigmas, {**extra_args, "model_options": {**extra_args["model_options"], "transformer_options": options}},
            *args, **kwargs,
        )  # fmt: skip

    forgetful = tiled(model)
    forgetful.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "forget", forget)
    for a, b in zip(predictions(forgetful, noise_like(latent), 3.0, POSITIVE, NEGATIVE), wanted, strict=True):
        assert torch.equal(a, b)


def jump_ratio(picture, borders, axis):
    """Mean jump between neighbours across the borders of tiles, over that elsewhere."""
    jumps = picture.diff(dim=axis).abs().mean(dim=[d for d in range(picture.ndim) if d != axis % picture.ndim])
    at = torch.zeros(len(jumps), dtype=torch.bool)
    at[[b - 1 for b in borders]] = True
    return (jumps[at].mean() / jumps[~at].mean()).item()


@pytest.mark.parametrize("kind", ["flat", "gradient"])
def test_no_seams(loaded, kind):
    """At the borders of tiles the picture jumps no more than elsewhere; with hard borders the same statistic sees them."""
    ramp = torch.linspace(0.2, 0.8, 256).view(1, 1, -1, 1).expand(1, 256, -1, 3) if kind == "gradient" else torch.full(
        (1, 256, 256, 3), 0.5
    )  # fmt: skip
    model, latent = align(loaded, ramp.contiguous())
    latent = {"samples": torch.zeros_like(latent["samples"])}
    borders = sorted({b for start in official_starts(32, 16, 0.5) for b in (start, start + 16)} - {0, 32})
    smooth = torch.zeros_like(latent["samples"])  # no noise: what jumps is the network's doing
    result = sample(tiled(model, 128), latent, noise=smooth, steps=STEPS)
    hard = sample(tiled(model, 128, overlap=0.0), latent, noise=smooth, steps=STEPS)
    for axis in (-1, -2):
        ratio, seen = jump_ratio(result, borders, axis), jump_ratio(hard, [16], axis)
        print(f"{kind}, axis {axis}: {ratio:.2f} at half overlap, {seen:.2f} at none")
        assert ratio < 1.0 < seen
