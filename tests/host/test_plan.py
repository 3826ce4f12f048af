"""The plan against what a run really does, its memory against the host's functions, and where it is shown."""

from __future__ import annotations

import logging
import sys
import types

import comfy.model_management as mm
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.plan import FaithDiffPlan
from comfyui_faithdiff.nodes.planning import memory as plan_memory
from comfyui_faithdiff.nodes.planning.plan import plan
from comfyui_faithdiff.nodes.planning.text import plan_lines
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from comfyui_faithdiff.nodes.tiles import clock as call_clock
from comfyui_faithdiff.nodes.tiles.run import TileSettings
from support import tiny
from support.plans import IMAGE, STEPS, node_text, planned
from support.sampling import CFG, SEED, Loaded, align, encode, sample
from support.tiles import counted, tiled


@pytest.fixture(autouse=True)
def no_times_known(monkeypatch):
    monkeypatch.setattr(call_clock, "_row_seconds", {})


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


@pytest.mark.parametrize(
    ("image_px", "images", "size_px", "overlap", "batch", "cfg"),
    [
        ((104, 160), 1, 64, 0.5, 0, 5.0),
        ((104, 160), 1, 64, 0.5, 5, 1.0),
        ((104, 160), 2, 64, 0.25, 7, 5.0),
        ((97, 251), 1, 96, 0.0, 1, 5.0),
        ((56, 136), 3, 64, 0.75, 4, 1.0),
        ((64, 64), 2, 64, 0.5, 1, 5.0),
        ((104, 160), 3, 0, 0.5, 2, 5.0),
        ((48, 64), 1, 1024, 0.5, 0, 5.0),
    ],
)
def test_calls_are_those_of_the_run(loaded, image_px, images, size_px, overlap, batch, cfg):
    model, latent = align(loaded, tiny.image(*image_px, batch=images))
    counting, shapes = counted(tiled(model, size_px, overlap, batch))
    sample(counting, latent, steps=STEPS, cfg=cfg)
    found = planned(model, latent, size_px, overlap, batch, cfg=cfg)
    assert found.calls == len(shapes)
    assert found.units_in_call * found.prompts == max(shape[0] for shape in shapes)
    assert {shape[-2:] for shape in shapes} == {tuple(side // 8 for side in found.tile_px)}
    assert found.tiles * found.prompts * STEPS == sum(shape[0] for shape in shapes)
    assert found.image_px == Size(*image_px)


def test_prompts_follow_the_hosts_rule(aligned):
    model, latent = aligned
    both = model.clone()
    both.model_options = {**both.model_options, "disable_cfg1_optimization": True}
    assert [planned(m, latent, cfg=cfg).prompts for m, cfg in ((model, 5.0), (model, 1.0), (both, 1.0))] == [2, 1, 2]


def test_a_plan_loads_nothing(aligned, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr(mm, "load_models_gpu", refuse)
    assert node_text(*aligned).args[1] == 12


def test_memory_is_what_the_host_says(aligned):
    model, latent = aligned
    found = planned(model, latent, batch=3)
    memory, (alignment,) = found.memory, model.get_nested_additional_models()
    features = model.get_attachment("faithdiff").features.features_BCHW
    assert memory.weights_bytes == mm.module_size(model.model) + mm.module_size(alignment.model)
    assert memory.call_bytes == model.model.memory_required([3 * 2, 4, 8, 8])
    assert memory.row_bytes == model.model.memory_required([1, 4, 8, 8])
    assert features.device.type == "cpu"  # the host's intermediate device
    assert memory.features_bytes == features.nbytes and not memory.features_on_device
    assert memory.embeddings_bytes == 12 * tiny.WIDTH * 8 * 8 * model.model.get_dtype_inference().itemsize
    assert memory.device_bytes == mm.get_total_memory(model.load_device)
    assert memory.latents_bytes == latent["samples"].float().nbytes * 25 // 4  # four, two predictions, weights of one channel


def test_a_device_computes_as_many_tiles_as_its_free_memory_holds(aligned, monkeypatch):
    """As on a GPU: there the weights that are still to come are taken off first."""
    model, latent = aligned
    still_to_load = sum(p.model_size() - p.loaded_size() for p in (model, *model.get_nested_additional_models()))
    one_tile = 1.5 * model.model.memory_required([2, 4, 8, 8])
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    for tiles, expected in ((0.2, 1), (3.5, 3), (100.0, 8)):
        monkeypatch.setattr(model, "get_free_memory", lambda device, tiles=tiles: still_to_load + tiles * one_tile)
        assert plan_memory.free_bytes_in_run(model) == pytest.approx(tiles * one_tile)
        assert planned(model, latent).calls_in_step == -(-12 // expected)


def test_a_tile_that_does_not_fit_is_told_with_one_that_does(aligned, monkeypatch):
    model, latent = aligned
    monkeypatch.setattr(mm, "get_total_memory", lambda device: 2**50)
    assert not any("warning" in line for line in plan_lines(planned(model, latent, 128)))
    room = model.model.memory_required([1, 4, 8, 8])
    if mm.is_device_cpu(model.load_device):
        room += planned(model, latent).memory.weights_bytes
    monkeypatch.setattr(mm, "get_total_memory", lambda device: room)
    assert "set tile_size to 64" in plan_lines(planned(model, latent, 128))[-1]
    assert not any("warning" in line for line in plan_lines(planned(model, latent, 64)))
    monkeypatch.setattr(mm, "get_total_memory", lambda device: room - 1)
    assert "no tile fits" in plan_lines(planned(model, latent, 128))[-1]


def test_words(loaded, monkeypatch):
    monkeypatch.setattr(mm, "get_total_memory", lambda device: 2**50)  # a machine of little would be told more
    large = {"samples": torch.zeros(1, 4, 512, 512)}
    lines = plan_lines(planned(loaded.model, large, 1024, batch=4, steps=20))
    assert lines[:2] == [
        "4096 x 4096 px (16.8 MP) in 49 tiles (7 x 7) of 1024 px, overlap 50 %",
        "20 steps, 2 prompts: 260 UNet calls of at most 4 tiles",
    ]
    assert lines[3] == "time: unknown until the first run"
    assert "repeats itself" in plan_lines(planned(loaded.model, large, 0))[-1]
    batch = {"samples": torch.zeros(3, 4, 40, 56)}
    first = plan_lines(planned(loaded.model, batch, 256))[0]
    assert first == "3 images of 448 x 320 px (0.1 MP) in 6 tiles each (2 x 3) of 256 px, overlap 62 % across, 75 % down"
    wide = plan_lines(planned(loaded.model, {"samples": torch.zeros(1, 4, 16, 56)}, 256))[0]
    assert wide == "448 x 128 px (0.1 MP) in 3 tiles (1 x 3) of 256 x 128 px, overlap 62 %"
    assert planned(loaded.model, batch, 0).tiles == 3


def test_wrong_latents_are_told(aligned, loaded):
    with pytest.raises(ValueError, match="same FaithDiff Encode LQ Features"):
        planned(aligned[0], {"samples": torch.zeros(1, 4, 16, 16)})
    with pytest.raises(ValueError, match="expected a latent of images"):
        planned(loaded.model, {"samples": torch.zeros(1, 4, 3, 16, 16)})


def test_the_node_shows_its_text(aligned):
    result = node_text(*aligned)
    assert result.ui.as_dict() == {"text": (result.args[0],)} and FaithDiffPlan.define_schema().is_output_node


def run_sampler(node, model, latent, tile_size):
    prompts = tiny.conditioning(1), tiny.conditioning(2)
    return node.execute(model, SEED, 1, CFG, "euler", "ddim_uniform", *prompts, latent, 1.0, tile_size, 0.5, 0)


def test_the_sampler_shows_its_plan_where_there_are_tiles(aligned, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    ours = lambda: [r.getMessage() for r in caplog.records if r.getMessage().startswith("FaithDiff")]  # noqa: E731
    sent = []
    send = types.SimpleNamespace(client_id="asked", send_progress_text=lambda *told: sent.append(told))
    server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=send))
    monkeypatch.setitem(sys.modules, "server", server)
    schema, v3 = FaithDiffSampler.GET_SCHEMA(), {"hidden_inputs": {}}
    for hidden in schema.hidden:
        v3["hidden_inputs"][hidden] = "17"
    run_by_server = FaithDiffSampler.PREPARE_CLASS_CLONE(v3)
    run_sampler(run_by_server, *aligned, 1024)
    assert not sent and not ours()
    run_sampler(run_by_server, *aligned, 64)
    settings = TileSettings(tile_size_px=64, tile_overlap_frac=0.5, tile_batch=0)
    lines = plan_lines(plan(aligned[0], aligned[1]["samples"], steps=1, cfg=CFG, settings=settings))
    ((text, node_id, page),) = sent
    assert (node_id, page) == ("17", "asked") and text.splitlines()[:3] == lines[:3]
    assert ours() == [f"FaithDiff: {lines[0]}; {lines[1]}"]
    run_sampler(FaithDiffSampler, *aligned, 64)  # without the host's executor
    del server.PromptServer.instance
    run_sampler(run_by_server, *aligned, 64)  # its executor without its server
    assert len(sent) == 1


def test_features_that_serve_every_latent_of_a_batch(loaded):
    features, latent = encode(Loaded(*loaded), IMAGE)
    frames = {"samples": latent["samples"].repeat(3, 1, 1, 1)}
    model, frames = FaithDiffAlignLatent.execute(loaded.model, features, frames, 1.0, 0.0, 1.0, "noise").args
    assert planned(model, frames).tiles == 36
