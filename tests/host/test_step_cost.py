"""What a step costs beyond the bare UNet's: FLOPs counted at SDXL's size, and what is computed once for several prompts."""

from __future__ import annotations

from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
import comfy.ops
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from comfyui_faithdiff.faithdiff_core.alignment import AlignmentModule
from comfyui_faithdiff.faithdiff_core.architecture import AlignmentSizes
from comfyui_faithdiff.faithdiff_core.geometry import Box
from comfyui_faithdiff.nodes.alignment import patch as patches
from support import tiny
from support.compare import NETWORK, assert_close
from support.sampling import align, encode, noise_like, predictions, sample
from support.tiles import tiled
from torch.utils.flop_counter import FlopCounterMode

IMAGE = tiny.image(104, 160)
SDXL = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10,
    "context_dim": 2048, "num_head_channels": 64, "num_classes": "sequential",
    "adm_in_channels": 2816, "use_linear_in_transformer": True, "use_spatial_transformer": True, "use_checkpoint": False,
    "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
OFFICIAL_OVERHEAD = 0.0514  # of the official code, counted in the same way
CELLS = 128  # 1024 px


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def counted_flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


class MetaEmbeddings(patches.Embeddings):
    """As after the first step: made already."""

    def part(self, module, image, box, like):
        return like.new_empty(1, 320, CELLS, CELLS)


@pytest.mark.long
def test_flops_of_a_step_at_sdxl_size(monkeypatch):
    """A CFG pair at 1024 px on the meta device, with attention as one fused call, by torch's own counter."""
    meta = torch.device("meta")
    for name in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(host_attention, name, host_attention.attention_pytorch)
    unet = UNetModel(**SDXL, dtype=torch.float16, device=meta, operations=comfy.ops.disable_weight_init)
    module = AlignmentModule(AlignmentSizes(), folded=True, operations=torch.nn, device="meta", dtype=torch.float16)
    state = patches.AlignmentState(features=None, strength=1.0, start_percent=0.0, end_percent=1.0)
    run = patches.AlignmentRun(state, 99.0, 0.0, MetaEmbeddings(torch.empty(0)))
    rows = [(0, Box(0, 0, CELLS, CELLS))] * 2
    half = {"device": meta, "dtype": torch.float16}

    def step(patch):
        options = {"patches": {"input_block_patch": [patch] if patch else []}}
        with torch.no_grad():
            unet(
                torch.empty(2, 4, CELLS, CELLS, **half), torch.empty(2, **half), context=torch.empty(2, 77, 2048, **half),
                y=torch.empty(2, 2816, **half), transformer_options=options,
            )  # fmt: skip

    bare = counted_flops(lambda: step(None))
    once, twice = (counted_flops(lambda p=p: step(patches.alignment_patch(module, run, rows, p))) / bare - 1 for p in (2, 1))
    embedding = counted_flops(lambda: module.embed(torch.empty(1, 512, CELLS, CELLS, **half))) / bare
    print(f"bare {bare / 1e12:.3f} TFLOP; module once {once:.2%}, twice {twice:.2%}; embedding, once a run {embedding:.2%}")
    assert 0.003 < once < 0.012 and once + embedding / 20 < 0.012
    assert twice == pytest.approx(2 * once) and 2 * once + 2 * embedding < OFFICIAL_OVERHEAD


def rows_in_the_module(model, latent, **kwargs):
    """(rows of the UNet call, rows that the alignment module computed) for each call of one step."""
    module = model.get_attachment("faithdiff").features.model.alignment.model
    seen: list[list[int]] = []

    def look(executor, x, *args, **kwargs):
        seen.append([x.shape[0]])
        return executor(x, *args, **kwargs)

    hook = module.register_forward_pre_hook(lambda _module, inputs: seen[-1].append(inputs[0].shape[0]))
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "look", look)
    try:
        result = sample(model, latent, steps=1, **kwargs)
    finally:
        hook.remove()
    return [tuple(rows) for rows in seen], result


def test_the_module_is_computed_once_for_all_prompts(aligned):
    model, latent = aligned
    assert rows_in_the_module(model, latent)[0] == [(2, 1)]
    assert rows_in_the_module(model, latent, cfg=1.0)[0] == [(1, 1)]
    assert rows_in_the_module(tiled(model, batch=6), latent)[0] == [(12, 6), (12, 6)]
    assert rows_in_the_module(model, latent, positive=tiny.conditioning(1) + tiny.conditioning(3))[0] == [(3, 1)]


def test_areas_are_computed_apart(aligned):
    model, latent = aligned
    area = tiny.conditioning(1, area=(8, 8, 0, 0)) + tiny.conditioning(3, area=(8, 8, 5, 12))
    calls = rows_in_the_module(model, latent, positive=area)[0]
    # the host stacks the two areas and the negative's two copies of them: equal sizes, other parts
    assert all(computed == rows for rows, computed in calls) and sum(rows for rows, _ in calls) == 5


def test_several_latents_of_one_image_are_all_computed(loaded):
    features, _ = encode(loaded, IMAGE)
    from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent

    latent = {"samples": torch.zeros(3, 4, 13, 20)}
    model, latent = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "noise").args
    assert rows_in_the_module(model, latent)[0] == [(6, 3)]


def test_a_node_that_changes_the_latent_of_one_prompt(aligned):
    """Behind the host's back the rows differ: then each is computed, and gets its own."""
    model, latent = aligned

    def change_one(apply, args):
        x = args["input"].clone()
        x[1:] *= 1.5
        return apply(x, args["timestep"], **args["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(change_one)
    assert rows_in_the_module(model, latent)[0] == [(2, 2)]


def with_a_network_wrapper(model):
    """Another node around the network, which might change what enters it."""

    def theirs(executor, *args, **kwargs):
        return executor(*args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "theirs", theirs)
    return model


@pytest.mark.parametrize("kind", ["adapter", "network wrapper"])
def test_what_enters_the_first_features_beside_the_latent(aligned, kind):
    model, latent = aligned
    positive = tiny.conditioning(1)
    if kind == "adapter":
        from host.test_tiles_control import HINT, made_up_adapter, with_control

        positive = with_control(positive, made_up_adapter(), HINT)
    else:
        model = model.clone()
        model.add_wrapper_with_key(
            WrappersMP.DIFFUSION_MODEL, "theirs", lambda executor, *args, **kwargs: executor(*args, **kwargs)
        )
    assert rows_in_the_module(model, latent, positive=positive)[0] == [(2, 2)]


def test_both_ways_give_the_same(aligned):
    model, latent = aligned
    assert_close(sample(with_a_network_wrapper(model), latent), sample(model, latent), NETWORK)


def test_embeddings_are_made_once_and_within_a_budget(loaded, aligned, monkeypatch):
    model, latent = aligned
    module = loaded.faithdiff.alignment.model
    made = []
    embed = module.embed
    monkeypatch.setattr(module, "embed", lambda part: made.append(part.shape) or embed(part))
    kept = sample(tiled(model), latent)
    assert len(made) == 12  # in 3 steps
    made.clear()
    monkeypatch.setattr(patches, "MAX_EMBEDDINGS_BYTES", 5 * tiny.WIDTH * 8 * 8 * 4)
    assert torch.equal(sample(tiled(model), latent), kept)
    assert len(made) == 12 + 2 * 7  # 5 of the 12 are kept, the others made at every step


def test_features_stay_where_they_are(loaded, aligned):
    """Only parts of the features are ever moved; nothing of the whole image's size but latents and masks goes to the network."""
    model, latent = aligned
    state = model.get_attachment("faithdiff")
    seen = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            result = super().__torch_function__(func, types, args, kwargs or {})
            if isinstance(result, torch.Tensor) and func is not torch.Tensor.__getitem__:
                seen.append(tuple(result.shape))
            return result

    watched = replace(state, features=replace(state.features, features_BCHW=state.features.features_BCHW.as_subclass(Watched)))
    model = model.clone()
    model.set_attachments("faithdiff", watched)
    sample(tiled(model), latent, steps=1)
    assert seen and not any(shape[-2:] == (13, 20) for shape in seen)


def test_predictions_without_a_prompt_pair(aligned):
    model, latent = aligned
    uncond, cond = predictions(model, noise_like(latent), 3.0, tiny.conditioning(1), tiny.conditioning(1))
    assert_close(uncond, cond, NETWORK)
