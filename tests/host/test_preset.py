"""FaithDiff Preset: its values are ones that the other nodes take, through the host's own validation."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.presets import PRESETS, SETTINGS, Preset
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.preset import FaithDiffPreset
from comfyui_faithdiff.nodes.prompt import FaithDiffPrompt
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from support import tiny
from support.executor import run_prompt

TAKERS = {
    FaithDiffSampler: ("steps", "cfg", "denoise", "noise_mode"),
    FaithDiffPrompt: ("add_quality",),
    FaithDiffColorFix: ("method",),
}


def test_outputs_have_the_names_types_and_choices_of_the_inputs_that_take_them():
    outputs = {o.display_name: o for o in FaithDiffPreset.define_schema().outputs}
    assert list(outputs) == [*SETTINGS, "about"]
    assert sorted(name for names in TAKERS.values() for name in names) == sorted(SETTINGS)
    for taker, names in TAKERS.items():
        inputs = {i.id: i for i in taker.define_schema().inputs}
        for name in names:
            assert outputs[name].io_type == inputs[name].io_type, name
            if inputs[name].io_type == "COMBO":
                assert outputs[name].options == inputs[name].options, name
            for preset in PRESETS.values():
                value = getattr(preset, name)
                if inputs[name].io_type == "COMBO":
                    assert value in inputs[name].options, (name, value)
                elif inputs[name].io_type != "BOOLEAN":
                    assert inputs[name].min <= value <= inputs[name].max, (name, value)


def test_photo_is_what_the_nodes_start_with():
    defaults = {i.id: i.default for taker in TAKERS for i in taker.define_schema().inputs if i.id in SETTINGS}
    assert PRESETS["photo"].values() == Preset(when="").values() == defaults


@pytest.mark.parametrize("name", PRESETS)
def test_every_departure_has_its_reason_and_nothing_else_has(name):
    preset, photo = PRESETS[name], PRESETS["photo"]
    changed = [setting for setting in SETTINGS if getattr(preset, setting) != getattr(photo, setting)]
    assert sorted(preset.why) == sorted(changed)
    about = FaithDiffPreset.execute(name).args[-1]
    assert about.startswith(f"{name}: {preset.when}") and all(why.text in about for why in preset.why.values())
    assert not (preset.why.get("cfg") or preset.why.get("add_quality") or (..., False))[1], "no prompt, so it cannot be measured"


def chain(**settings) -> dict:
    """A prompt that restores, with these settings typed or linked."""
    given = {str(i): {"class_type": "GiveTestObject", "inputs": {"index": i}} for i in range(4)}
    align = {"model": ["0", 0], "features": ["encode", 0], "latent": ["encode", 1], "start_percent": 0.0}
    align |= {"strength": 1.0, "end_percent": 1.0, "start_from": "lq"}
    sampler = {
        "model": ["align", 0], "latent_image": ["align", 1], "positive": ["3", 0], "negative": ["3", 0], "seed": 1,
        "sampler_name": "euler", "scheduler": "ddim_uniform", "tile_size": 0, "tile_overlap": 0.5, "tile_batch": 0,
    }  # fmt: skip
    sampler |= {name: settings[name] for name in TAKERS[FaithDiffSampler]}
    return {
        **given,
        "preset": {"class_type": "FaithDiffPreset", "inputs": {"preset": "film frame"}},
        "encode": {"class_type": "FaithDiffEncodeLQ", "inputs": {"faithdiff": ["1", 0], "image": ["2", 0], "tile_size": 0}},
        "align": {"class_type": "FaithDiffAlignLatent", "inputs": align},
        "sample": {"class_type": "FaithDiffSampler", "inputs": sampler},
        "color": {
            "class_type": "FaithDiffColorFix",
            "inputs": {"image": ["2", 0], "reference": ["2", 0], "method": settings["method"]},
        },
        "kept": {"class_type": "Keep", "inputs": {"value": ["sample", 0]}},
        "colored": {"class_type": "Keep", "inputs": {"value": ["color", 0]}},
    }


def test_linked_settings_pass_the_hosts_validation_and_do_what_typed_ones_do(loaded, monkeypatch):
    objects = [loaded.model, loaded.faithdiff, tiny.image(64, 64, batch=2), tiny.conditioning(0)]
    linked = {name: ["preset", i] for i, name in enumerate(SETTINGS)}
    classes = [FaithDiffPreset, FaithDiffEncodeLQ, FaithDiffAlignLatent, FaithDiffSampler, FaithDiffColorFix]
    runs = []
    for settings in (linked, PRESETS["film frame"].values(), PRESETS["photo"].values()):
        kept = [values[0] for values in run_prompt(monkeypatch, chain(**settings), classes, objects)]
        runs += [next(value["samples"] for value in kept if isinstance(value, dict))]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
