"""What the nodes say, by language: English is what the schemas say, and every other language says as much."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest
from comfyui_faithdiff.nodes import comfy_entrypoint
from write_locales import FILE_NAME, LOCALES, MADE_FROM, definitions, different_keys, made_from, stale, text_of

FILES = sorted(LOCALES.glob(f"*/{FILE_NAME}"))
TRANSLATIONS = [path for path in FILES if path.parent.name != "en"]


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


@pytest.mark.parametrize("path", TRANSLATIONS, ids=lambda path: path.parent.name)
def test_no_translation_is_older_than_its_english(english, path):
    noted = json.loads(path.with_name(MADE_FROM).read_text(encoding="utf-8"))
    old = stale(english, noted)
    assert not old, f"{path}: the English of {', '.join(old)} has changed; translate anew, then run `make locales`"
    now = made_from(english, json.loads(path.read_text(encoding="utf-8")), noted)
    assert noted == now, f"{path}: {noted.items() ^ now.items()}; run `make locales`, which notes what texts were made from"


def test_a_changed_english_text_is_named_until_its_translation_changes():
    english, german = {"A": {"name": "size", "tooltip": "Its size."}}, {"A": {"name": "Seite", "tooltip": "Die Seite."}}
    noted = made_from(english, german, {})
    assert list(noted) == ["A.name", "A.tooltip"] and stale(english, noted) == []
    english["A"]["tooltip"] = "Its size in pixels."
    noted = made_from(english, german, noted)
    assert stale(english, noted) == ["A.tooltip"]
    assert stale(english, made_from(english, german, {"A.name": noted["A.name"]})) == []  # its line taken out: it still fits
    german["A"]["tooltip"] = "Die Seite in Pixeln."
    assert stale(english, made_from(english, german, noted)) == []


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
