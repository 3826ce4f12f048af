"""Every input that a link brings is looked at, by the type that the node's schema gives it; what is of no such type gets one
message."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
from comfy_api.latest import io
from comfyui_faithdiff.nodes import FaithDiffExtension
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.seam.inputs import check_prompt, checked
from comfyui_faithdiff.nodes.upscale import FaithDiffUpscale
from support import tiny

NODES = [(node, part.id) for node in asyncio.run(FaithDiffExtension().get_node_list()) for part in node.define_schema().inputs]
WIDGETS = ("INT", "FLOAT", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
WITH_ALL = SimpleNamespace(
    model=0,
    clone=0,
    encoder=0,
    alignment=0,
    features_BCHW=0,
    size_px=0,
    lq_BHWC=0,
    tokenize=0,
    encode=0,
    decode=0,
    scale=0,
    source=0,
    alpha_HW=0,
    job=0,
    begun=0,
    photo=0,
)
BY_TYPE = {"IMAGE": tiny.image(8, 8), "MASK": torch.ones(4, 4), "LATENT": {"samples": torch.zeros(1, 4, 1, 1)}, "STRING": "a",
           "CONDITIONING": tiny.conditioning(1)}  # fmt: skip


@pytest.mark.parametrize(("node", "name"), NODES, ids=lambda part: getattr(part, "__name__", part))
def test_every_link_of_every_node_is_looked_at(node, name):
    """With all other inputs sound, an object that is of no type at all is refused by its input's name, before any work."""
    schema = node.define_schema()
    given = {part.id: BY_TYPE.get(part.io_type, WITH_ALL) for part in schema.inputs}
    (tested,) = (part for part in schema.inputs if part.id == name)
    if tested.io_type in WIDGETS:
        given[name] = {"target": "scale factor", "factor": float("nan")} if name == "target" else float("nan")
    else:
        given[name] = object()
    if schema.is_input_list:
        given = {key: [value] for key, value in given.items()}
    with pytest.raises(ValueError, match=rf"^expected .* as (factor|{name}), got "):
        node.execute(**given)


class One(io.ComfyNode):
    """Has an input of every type."""

    @classmethod
    def define_schema(cls):
        inputs = [
            io.Image.Input("image", optional=True), io.Mask.Input("mask", optional=True), io.Clip.Input("clip"),
            io.Latent.Input("latent", optional=True), io.Conditioning.Input("positive", optional=True),
            io.Model.Input("model", optional=True), io.String.Input("caption", optional=True),
            io.Float.Input("strength", optional=True),
            io.DynamicCombo.Input("target", options=[io.DynamicCombo.Option("x", [io.Float.Input("factor")])]),
        ]  # fmt: skip
        return io.Schema(node_id="One", inputs=inputs)

    @classmethod
    @checked
    def execute(cls, clip, **_others):
        return "done"


class Lists(io.ComfyNode):
    """Takes every input as a list."""

    @classmethod
    def define_schema(cls):
        inputs = [io.String.Input("captions"), io.Clip.Input("clip")]
        return io.Schema(node_id="Lists", is_input_list=True, inputs=inputs)

    @classmethod
    @checked
    def execute(cls, captions, clip):
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
    assert One.execute(**SOUND) == "done" and Lists.execute(["a", "b"], [None]) == "done"


@pytest.mark.parametrize(("name", "value", "wanted"), UNSOUND)
def test_what_is_not_gets_one_message(name, value, wanted):
    with pytest.raises(ValueError, match=rf"^expected {wanted}\b.* as (factor|{name}), got .*; [^\n]+$"):
        One.execute(**{"clip": None, "target": {"target": "x", "factor": 2.0}, name: value})


def test_lists_are_looked_at_one_by_one():
    with pytest.raises(ValueError, match="expected text as captions, got int"):
        Lists.execute(["a", 5], [None])


def test_a_choice_that_there_is_not():
    with pytest.raises(ValueError, match="expected one of the choices of captions, got none that there is; choose one"):
        Lists.execute(clip=[None])


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
