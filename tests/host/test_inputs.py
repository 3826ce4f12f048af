"""Every input that a link brings is looked at by its name; what is not of its type gets one message."""

from __future__ import annotations

import asyncio

import pytest
import torch
from comfyui_faithdiff.nodes import FaithDiffExtension
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.seam.inputs import ATTRIBUTES, CHECKS, TYPES, check_prompt, checked, checked_lists
from comfyui_faithdiff.nodes.upscale import FaithDiffUpscale
from support import tiny

NODES = asyncio.run(FaithDiffExtension().get_node_list())
WIDGETS = ("INT", "FLOAT", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_link_of_every_node_is_looked_at(node):
    assert hasattr(node.execute, "__wrapped__"), "execute is not checked"
    for part in node.define_schema().inputs:
        if part.io_type not in WIDGETS:
            assert TYPES[part.id] == part.io_type
            assert part.io_type in CHECKS or part.io_type in ATTRIBUTES
        else:
            assert part.id not in TYPES


@checked
def one(
    cls, image=None, mask=None, latent=None, positive=None, model=None, clip=None, caption=None, strength=None, target=None
):  # the names say the types
    return "done"


@checked_lists
def lists(cls, captions, clip):
    return "done"


SOUND = {"image": tiny.image(8, 8), "mask": torch.ones(4, 4), "latent": {"samples": torch.zeros(1, 4, 1, 1)}, "clip": None,
         "positive": tiny.conditioning(1), "caption": "ü", "strength": 0.5, "target": {"target": "x", "factor": 2.0}}  # fmt: skip
UNSOUND = [
    ("image", 5, "an IMAGE"), ("image", torch.zeros(8, 8, 3), "an IMAGE"), ("image", torch.zeros(1, 8, 8, 2), "an IMAGE"),
    ("image", torch.zeros(0, 8, 8, 3), "an IMAGE"), ("image", torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "an IMAGE"),
    ("mask", torch.ones(4), "a MASK"), ("mask", torch.ones(4, 0), "a MASK"), ("mask", torch.full((4, 4), float("nan")), "a MASK"),
    ("mask", "all", "a MASK"), ("latent", {}, "a LATENT"), ("latent", [], "a LATENT"), ("latent", {"samples": None}, "a LATENT"),
    ("latent", {"samples": torch.zeros(0, 4, 1, 1)}, "an SDXL image latent"), ("positive", "text", "a CONDITIONING"),
    ("positive", [[1, {}]], "a CONDITIONING"), ("positive", [[torch.zeros(1)]], "a CONDITIONING"), ("model", "m", "a MODEL"),
    ("clip", 3, "a CLIP"), ("caption", 3, "text"), ("caption", "\ud800", "Unicode text"),
    ("strength", float("nan"), "a finite number"),
    ("target", {"target": "x", "factor": float("inf")}, "a finite number"),
]  # fmt: skip


def test_what_is_sound_passes():
    assert one(None, **SOUND) == "done" and lists(None, ["a", "b"], [None]) == "done"


@pytest.mark.parametrize(("name", "value", "wanted"), UNSOUND)
def test_what_is_not_gets_one_message(name, value, wanted):
    with pytest.raises(ValueError, match=rf"^expected {wanted}\b.* as (factor|{name}), got .*; [^\n]+$"):
        one(None, **{name: value})


def test_lists_are_looked_at_one_by_one():
    with pytest.raises(ValueError, match="expected text as captions, got int"):
        lists(None, ["a", 5], [None])


def test_a_choice_that_there_is_not():
    with pytest.raises(ValueError, match="expected one of the choices of captions, got none that there is; choose one"):
        lists(None, clip=[None])


BAD_PROMPTS = [
    ([], "a prompt as positive, got none"),
    ([[torch.zeros(1, 77, 768), {}]], "an SDXL prompt 64 wide with a pooled part of 32 as positive, got 768 wide with none"),
    ([[torch.zeros(1, 77, 64), {"pooled_output": None}]], "an SDXL prompt 64 wide .*, got 64 wide with none"),
    ([[torch.full((1, 77, 64), float("nan")), {"pooled_output": torch.zeros(1, 32)}]], "finite numbers in positive, got NaN"),
]


@pytest.mark.parametrize(("prompt", "wanted"), BAD_PROMPTS)
def test_prompts_of_another_model_are_told_of(loaded, prompt, wanted):
    with pytest.raises(ValueError, match=f"^expected {wanted}.*; "):
        check_prompt("positive", prompt, loaded.model)
    check_prompt("positive", tiny.conditioning(1), loaded.model)


def test_not_a_number_in_a_picture_never_spreads():
    image = tiny.image(16, 16, batch=2)
    image[1, 3, 4, 0] = float("nan")
    for run in (
        lambda: FaithDiffUpscale.execute(image, {"target": "scale factor", "factor": 2.0}),
        lambda: FaithDiffColorFix.execute(image, tiny.image(16, 16, batch=2), "none"),
        lambda: FaithDiffColorFix.execute(tiny.image(16, 16, batch=2), image, "wavelet"),
    ):
        with pytest.raises(
            ValueError, match=r"^expected .*, got NaN or infinity in image 2; if it comes from a VAE, start ComfyUI"
        ):
            run()
