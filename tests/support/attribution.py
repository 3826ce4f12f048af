"""Runs with and without attribution, and plain attention to compare its maps with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import CrossAttention
from comfyui_faithdiff.faithdiff_core.attribution import words_of_tokens
from comfyui_faithdiff.nodes.attribution_maps.hook import Attribution
from comfyui_faithdiff.nodes.attribution_maps.words import PromptWords
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler

PROMPT = "A red car, and a dog."
LONG = f"{'word ' * 80} (old:1.3) car"
SAMPLING = {
    "seed": 7, "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0, "tile_size": 0,
    "tile_overlap": 0.5, "tile_batch": 0, "noise_mode": "per image",
}  # fmt: skip


def run(model, latent, positive, negative, words, **changes):
    """(shares, latent) of a run with attribution."""
    attribution = Attribution(words)
    (result,) = FaithDiffSampler.execute(
        attribution.on(model), positive=positive, negative=negative, latent_image=latent, **{**SAMPLING, **changes}
    ).args
    return attribution.shares(), result["samples"]


def sampled(model, latent, positive, negative, **changes):
    (result,) = FaithDiffSampler.execute(
        model, positive=positive, negative=negative, latent_image=latent, **{**SAMPLING, **changes}
    ).args
    return result["samples"]


def all_words(words):
    """Every token of the prompt as one word: it gets all of the attention."""
    tokens = words.words_TW.shape[0]
    return PromptWords(words=("all",), words_TW=words_of_tokens([range(tokens)], tokens), contexts_1TC=words.contexts_1TC)


class PlainAttention:
    """Shares by hooks on the projections' outputs and whole softmaxes: a list with one (rows, words, H, W) for each call."""

    def __init__(self, loaded, words_TW, size):
        self.calls, self.layers, self.size, self.words_TW, self.handles = [], [], size, words_TW, []
        self.network = loaded.model.model.diffusion_model
        for name, module in self.network.named_modules():
            if isinstance(module, CrossAttention) and name.endswith("attn2"):  # to the prompt; attn1 is to the picture itself
                self.handles += [
                    module.to_q.register_forward_hook(lambda _m, _i, out, at=module: self._q(out, at)),
                    module.to_k.register_forward_hook(lambda _m, _i, out, at=module: self._k(out, at)),
                ]

    def __enter__(self):
        self.handles.append(self.network.register_forward_hook(lambda *_: self._end()))
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def _q(self, out, at):
        at.test_q = out

    def _k(self, out, at):
        heads = [(q, k) for q, k in zip(at.test_q.chunk(at.heads, -1), out.chunk(at.heads, -1), strict=True)]
        scores = torch.stack([(q @ k.transpose(1, 2) / at.dim_head**0.5).softmax(-1) for q, k in heads]).mean(0)
        words_TW = self.words_TW.repeat(scores.shape[-1] // len(self.words_TW), 1)
        places = scores.shape[1]
        height = next(h for h in range(1, 99) if h * -(-h * self.size[1] // self.size[0]) == places)
        maps = (scores @ words_TW).transpose(1, 2).unflatten(-1, (height, -1))
        self.layers.append(F.interpolate(maps, size=self.size, mode="bicubic"))

    def _end(self):
        self.calls.append(torch.stack(self.layers).mean(0))
        self.layers = []
