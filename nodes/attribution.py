"""FaithDiff Word Attribution: where the network looks for a word of the prompt, with FaithDiff and without (paper, Figure 6)."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.sd
from comfy_api.latest import io

from .alignment.hook import detach
from .alignment.patch import KEY as ALIGNMENT_KEY
from .attribution_maps.hook import Attribution
from .attribution_maps.picture import WordRun, show
from .attribution_maps.words import PromptWords, prompt_words, require_prompt
from .sampler import FaithDiffSampler
from .seam.inputs import checked
from .seam.types import REPORT_CATEGORY
from .seam.unet_loader import require_sdxl


class FaithDiffAttribution(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        of_sampler = [i for i in FaithDiffSampler.define_schema().inputs if i.id not in ("model", "positive")]
        return io.Schema(
            node_id="FaithDiffAttribution",
            display_name="FaithDiff Word Attribution",
            category=REPORT_CATEGORY,
            description="Shows as a heat map where the network looks for a word of the prompt, with FaithDiff and without. "
            "Samples by itself, like FaithDiff Sampler.",
            search_aliases=["daam", "attention map", "heat map", "cross attention"],
            inputs=[
                io.Model.Input("model", tooltip="From FaithDiff Align Latent."),
                io.Clip.Input("clip", tooltip="The CLIP that the prompt was encoded with."),
                io.Vae.Input("vae", tooltip="Decodes the pictures that the maps are drawn over."),
                io.Conditioning.Input("positive", tooltip="The prompt, from FaithDiff Prompt or CLIP Text Encode."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="The text that positive was made from; connect text of FaithDiff Prompt.",
                ),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="Words of the prompt, separated by commas; each gets its maps. Several words in a row count as one: "
                    "red car.",
                ),
                io.Boolean.Input(
                    "compare",
                    default=True,
                    tooltip="Samples once more without the alignment, and shows both on one scale. Takes twice the time.",
                ),
                *of_sampler,
            ],
            outputs=[
                io.Image.Output(
                    display_name="heat_maps",
                    tooltip="A picture for every word, image and run: brightest where the most attention goes to the word.",
                ),
                io.Mask.Output(
                    display_name="masks", tooltip="The same maps without the picture; 1 where the attention is highest."
                ),
                io.String.Output(display_name="figures", tooltip="The share of the attention that each word gets, in figures."),
                io.Latent.Output(tooltip="The restored latent, the same that FaithDiff Sampler gives."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        clip: comfy.sd.CLIP | None,
        vae: comfy.sd.VAE | None,
        positive: list,
        prompt: str,
        words: str,
        compare: bool,
        **sampling: Any,  # the sampler's other inputs
    ) -> io.NodeOutput:
        if vae is None:
            raise ValueError("expected a VAE, got none: the checkpoint holds no VAE; load one with Load VAE")
        models = _models(model, compare)
        found = prompt_words(clip, prompt, words)
        require_prompt(positive, found)
        sampling["positive"] = positive
        runs, latents = zip(*(_run(one, found, vae, sampling) for one in models), strict=True)
        shown = show(found.words, list(runs))
        return io.NodeOutput(shown.pictures_BHWC, shown.masks_BHW, shown.figures, latents[0])


def _models(model: comfy.model_patcher.ModelPatcher, compare: bool) -> list[comfy.model_patcher.ModelPatcher]:
    """The MODEL, and where asked for it, the same without its alignment.

    Raises:
        ValueError: not SDXL, or nothing to compare with.
    """
    require_sdxl(model, "model")
    if not compare:
        return [model]
    if model.get_attachment(ALIGNMENT_KEY) is None:
        raise ValueError(
            "expected a MODEL from FaithDiff Align Latent to compare with and without FaithDiff, got one without "
            "alignment; connect FaithDiff Align Latent at a strength above 0, or set compare to false"
        )
    return [model, detach(model)]


def _run(
    model: comfy.model_patcher.ModelPatcher, words: PromptWords, vae: comfy.sd.VAE, sampling: dict[str, Any]
) -> tuple[WordRun, dict]:
    attribution = Attribution(words)
    (latent,) = FaithDiffSampler.execute(attribution.on(model), **sampling).args
    return WordRun(shares_BWHW=attribution.shares(), pictures_BHWC=vae.decode(latent["samples"])), latent
