"""FaithDiff Prompt: a caption, from a captioning node or typed, to the conditioning that the weights were trained with."""

from __future__ import annotations

import re

import comfy.sd
from comfy_api.latest import io

from ..faithdiff_core.captions import trim_caption
from .seam.clip import encode
from .seam.inputs import checked
from .seam.types import PROMPT_CATEGORY

LEAD_IN = re.compile(r"\s*(the|this)\s+(image|picture|photo|photograph)\s+\S+\s", re.IGNORECASE)
"""How LLaVA and other captioners begin; the training rule drops as many words (official
Realesrgan_offline_dataset.py:157-164)."""
LEAD_IN_WORDS = 3
QUALITY_WORDS = "Best quality, high quality."
"""The release adds none (official test.py:127-128). These stand in its trainer as the alternative to a caption
(train_SDXL_stage_2.py:174, in a comment)."""


def caption_inputs() -> list[io.Input]:
    """How a caption becomes a prompt, the same for one and for a list."""
    return [
        io.Boolean.Input(
            "trim",
            default=True,
            tooltip="Shortens a caption as in training: without a lead-in like 'The image features', and two sentences at most. "
            "Off takes the text as it is.",
        ),
        io.Boolean.Input(
            "add_quality",
            default=False,
            tooltip=f"Adds '{QUALITY_WORDS}', also to an empty caption. The release adds nothing.",
        ),
    ]


class FaithDiffPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffPrompt",
            display_name="FaithDiff Prompt",
            category=PROMPT_CATEGORY,
            description="Turns a caption of the image, typed or from any captioning node, into the positive and the negative "
            "prompt. An empty caption will do.",
            search_aliases=["caption", "prompt", "clip text encode"],
            inputs=[
                io.Clip.Input("clip", tooltip="CLIP of an SDXL checkpoint, from Load Checkpoint."),
                io.String.Input(
                    "caption",
                    default="",
                    multiline=True,
                    tooltip="What the image shows, in a sentence or two. Type it, connect a captioning node, or leave it empty.",
                ),
                *caption_inputs(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The caption, for the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The empty prompt, as in the release."),
                io.String.Output(display_name="text", tooltip="The text that was encoded."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, clip: comfy.sd.CLIP | None, caption: str, trim: bool, add_quality: bool) -> io.NodeOutput:
        text = prompt_text(caption, trim=trim, add_quality=add_quality)
        return io.NodeOutput(encode(clip, text), encode(clip, ""), text)


def prompt_text(caption: str, *, trim: bool, add_quality: bool) -> str:
    """The text that is encoded for a caption.

    A caption that begins with a lead-in loses it; the training rule takes three words off whatever the caption is, which would
    behead a prompt that somebody typed.
    """
    text = caption.strip()
    if trim:
        text = trim_caption(text, skip_words=LEAD_IN_WORDS if LEAD_IN.match(text) else 0)
    return f"{text} {QUALITY_WORDS}".strip() if add_quality else text
