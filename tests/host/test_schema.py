"""The nodes' contract: ids, inputs, defaults, tooltips, and that `execute` takes what the schema declares."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from comfyui_faithdiff.nodes import comfy_entrypoint

CONTRACT = {
    "FaithDiffLoadModel": (["model_name", "weight_dtype", "base_model"], ["MODEL", "FAITHDIFF_MODEL"]),
    "FaithDiffEncodeLQ": (["faithdiff", "image", "vae", "tile_size"], ["FAITHDIFF_FEATURES", "LATENT"]),
    "FaithDiffAlignLatent": (
        ["model", "features", "latent", "strength", "start_percent", "end_percent", "start_from", "mask"],
        ["MODEL", "LATENT"],
    ),
    "FaithDiffSampler": (
        ["model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image", "denoise",
         "tile_size", "tile_overlap", "tile_batch", "noise_mode"],
        ["LATENT"],
    ),
    "FaithDiffTileModel": (["model", "tile_size", "tile_overlap", "tile_batch"], ["MODEL"]),
    "FaithDiffPlan": (
        ["model", "latent_image", "steps", "cfg", "tile_size", "tile_overlap", "tile_batch", "measure"],
        ["STRING", "INT"],
    ),
    "FaithDiffDecode": (["samples", "vae", "features", "fidelity", "decoder", "mask"], ["IMAGE"]),
    "FaithDiffColorFix": (["image", "reference", "method"], ["IMAGE"]),
    "FaithDiffReport": (
        ["image", "reference", "map", "tile_size", "tile_overlap", "scale", "truth"],
        ["STRING", "IMAGE"],
    ),
    "FaithDiffPreset": (["preset"], ["INT", "FLOAT", "FLOAT", "COMBO", "BOOLEAN", "COMBO", "STRING"]),
    "FaithDiffUpscale": (["image", "target", "upscale_model"], ["IMAGE", "INT", "INT"]),
    "FaithDiffPrompt": (["clip", "caption", "trim", "add_quality"], ["CONDITIONING", "CONDITIONING", "STRING"]),
    "FaithDiffSplitTiles": (["image", "tile_size", "tile_overlap"], ["IMAGE"]),
    "FaithDiffTilePrompts": (
        ["clip", "captions", "latent_image", "tile_size", "tile_overlap", "shared", "trim", "add_quality"],
        ["CONDITIONING", "CONDITIONING", "STRING"],
    ),
    "FaithDiffAttribution": (
        ["model", "clip", "vae", "positive", "prompt", "words", "compare", "seed", "steps", "cfg", "sampler_name", "scheduler",
         "negative", "latent_image", "denoise", "tile_size", "tile_overlap", "tile_batch", "noise_mode"],
        ["IMAGE", "MASK", "STRING", "LATENT"],
    ),
    "FaithDiffLoadNanoVAE": (["vae_name"], ["VAE"]),
    "FaithDiffNoPrompt": (["model"], ["CONDITIONING"]),
    "FaithDiffLoadPhoto": (["image"], ["IMAGE", "MASK", "FAITHDIFF_PHOTO"]),
    "FaithDiffSavePhoto": (
        ["image", "photo", "mask", "filename", "format", "bit_depth", "color_profile", "quality", "metadata", "workflow"],
        [],
    ),
    "FaithDiffLoadFolder": (
        ["folder", "pattern", "sub_folders", "save_to", "retry_failed", "again"],
        ["IMAGE", "MASK", "FAITHDIFF_FOLDER", "FAITHDIFF_PHOTO", "STRING", "INT", "INT"],
    ),
    "FaithDiffSaveFolder": (
        ["image", "folder", "mask", "format", "bit_depth", "color_profile", "quality", "metadata", "workflow"],
        [],
    ),
    "FaithDiffCompare": (["before", "after", "direction"], ["IMAGE"]),
    "FaithDiffGetWeights": (["file", "keep_bin"], ["COMBO"]),
}  # fmt: skip
DEFAULTS = {
    "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0, "tile_size": 1024,
    "tile_overlap": 0.5, "tile_batch": 0, "seed": 0, "noise_mode": "per image",
}  # fmt: skip


@pytest.fixture(scope="module")
def nodes():
    async def listed():
        return await (await comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(listed())}


def test_every_node_has_a_contract(nodes):
    assert set(nodes) == set(CONTRACT)


@pytest.mark.parametrize("node_id", CONTRACT)
def test_contract(nodes, node_id):
    schema = nodes[node_id].define_schema()
    inputs, outputs = CONTRACT[node_id]
    assert {i.id for i in schema.inputs} == set(inputs)
    assert [o.io_type for o in schema.outputs] == outputs


def test_defaults_are_the_releases(nodes):
    inputs = {i.id: i for i in nodes["FaithDiffSampler"].define_schema().inputs}
    assert {name: inputs[name].default for name in DEFAULTS} == DEFAULTS
    tiles = {i.id: i.default for i in nodes["FaithDiffTileModel"].define_schema().inputs if i.id != "model"}
    assert tiles == {name: DEFAULTS[name] for name in ("tile_size", "tile_overlap", "tile_batch")}
    assert {i.id: i.default for i in nodes["FaithDiffColorFix"].define_schema().inputs if i.id == "method"} == {"method": "adain"}
    align = {i.id: i for i in nodes["FaithDiffAlignLatent"].define_schema().inputs}
    assert [align[n].default for n in ("strength", "start_percent", "end_percent", "start_from")] == [1.0, 0.0, 1.0, "lq"]
    prompt = {i.id: i.default for i in nodes["FaithDiffPrompt"].define_schema().inputs if i.id != "clip"}
    assert prompt == {"caption": "", "trim": True, "add_quality": False}
    load = {i.id: i for i in nodes["FaithDiffLoadModel"].define_schema().inputs}
    assert load["weight_dtype"].options == ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]


def test_every_input_and_output_has_a_tooltip_and_every_node_a_description(nodes):
    for node in nodes.values():
        schema = node.define_schema()
        assert schema.description and schema.display_name
        for part in (*schema.inputs, *schema.outputs):
            assert part.tooltip and part.tooltip.endswith("."), (schema.node_id, part.tooltip)


def test_every_node_is_found_by_the_packs_name_and_by_its_task(nodes):
    for node in nodes.values():
        schema = node.define_schema()
        assert "FaithDiff" in schema.display_name
        assert schema.category.startswith("FaithDiff/"), schema.node_id
    for name in (
        "LoadPhoto",
        "Upscale",
        "LoadModel",
        "EncodeLQ",
        "AlignLatent",
        "Sampler",
        "Decode",
        "ColorFix",
        "SavePhoto",
        "LoadFolder",
        "SaveFolder",
    ):
        assert {"restore", "enhance", "old photo", "upscale"} <= set(nodes[f"FaithDiff{name}"].define_schema().search_aliases)


def test_the_ways_to_give_a_size(nodes):
    (target,) = (i for i in nodes["FaithDiffUpscale"].define_schema().inputs if i.id == "target")
    ways = {option.key: [(i.id, i.default) for i in option.inputs] for option in target.options}
    assert ways == {
        "scale factor": [("factor", 2.0)], "megapixels": [("megapixels", 4.0)], "longest side": [("longest_side", 2048)],
        "shortest side": [("shortest_side", 1024)],
    }  # fmt: skip


def test_tiles_travel_as_lists(nodes):
    split, prompts = (nodes[name].define_schema() for name in ("FaithDiffSplitTiles", "FaithDiffTilePrompts"))
    assert [o.is_output_list for o in split.outputs] == [True]
    assert prompts.is_input_list and [o.is_output_list for o in prompts.outputs] == [False, False, True]


def test_execute_takes_what_the_schema_declares(nodes):
    for node in nodes.values():
        declared = {i.id: getattr(i, "optional", False) for i in node.define_schema().inputs}
        parameters = dict(inspect.signature(node.execute).parameters)
        if parameters.pop("sampling", None):  # hands the rest to the sampler
            parameters = {**inspect.signature(nodes["FaithDiffSampler"].execute).parameters, **parameters}
        assert set(parameters) == set(declared)
        for name, optional in declared.items():
            assert (parameters[name].default is not inspect.Parameter.empty) == bool(optional), name


def test_release_spacing_of_the_default_scheduler(loaded):
    """ddim_uniform at 20 steps is the release's leading spacing: 951, 901, ... 1."""
    import comfy.samplers

    sampling = loaded.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", 20)
    assert [round(float(sampling.timestep(s))) for s in sigmas[:-1]] == list(range(951, 0, -50)) and float(sigmas[-1]) == 0
