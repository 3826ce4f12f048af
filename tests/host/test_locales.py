"""What the nodes say, by language: English is what the schemas say, and every other language says as much."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest
from comfyui_faithdiff.nodes import comfy_entrypoint
from write_locales import FILE_NAME, LOCALES, definitions, different_keys, text_of

FILES = sorted(LOCALES.glob(f"*/{FILE_NAME}"))


@pytest.fixture(scope="module")
def english():
    async def listed():
        return await (await comfy_entrypoint()).get_node_list()

    return definitions(asyncio.run(listed()))


def test_english_is_what_the_schemas_say(english):
    """Where this fails: environment.py --with test --run tools/write_locales.py"""
    assert (LOCALES / "en" / FILE_NAME).read_text(encoding="utf-8") == text_of(english)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_language_has_the_same_keys(english, path):
    assert different_keys(english, json.loads(path.read_text(encoding="utf-8"))) == []


def test_dependent_inputs_have_the_front_ends_keys(english):
    inputs = english["FaithDiffUpscale"]["inputs"]
    assert {"target", "target_factor", "target_megapixels", "target_longest_side", "target_shortest_side"} <= inputs.keys()
    assert english["FaithDiffUpscale"]["outputs"]["1"]["name"] == "width"


def test_gaps_are_found(english):
    assert different_keys(english, english) == []
    other = copy.deepcopy(english)
    del other["FaithDiffPrompt"]["inputs"]["trim"]["tooltip"]
    other["FaithDiffPrompt"]["outputs"]["0"]["name"] = " "
    other["FaithDiffGone"] = {}
    other["FaithDiffSampler"] = "text"
    assert different_keys(english, other) == [
        ".FaithDiffGone",
        ".FaithDiffPrompt.inputs.trim.tooltip",
        ".FaithDiffPrompt.outputs.0.name",
        ".FaithDiffSampler",
    ]
