"""Running the nodes in the host's process, and looking at single predictions."""

from __future__ import annotations

from typing import NamedTuple

import comfy.sample
import comfy.samplers
import torch
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.seam.bundle import FaithDiffModel

from . import tiny

STEPS, CFG, SEED = 3, 5.0, 7


class Loaded(NamedTuple):
    model: object
    faithdiff: FaithDiffModel


def encode(loaded: Loaded, image, vae=None):
    return FaithDiffEncodeLQ.execute(loaded.faithdiff, image, 0, vae).args


def align(loaded: Loaded, image, model=None, **kwargs):
    """(aligned MODEL, LATENT); the latent is random, so that starting from it is seen."""
    features, latent = encode(loaded, image)
    latent = {"samples": torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(3))}
    options = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "start_from": "lq", **kwargs}
    return FaithDiffAlignLatent.execute(model or loaded.model, features, latent, **options).args


def noise_like(latent, seed=SEED):
    return comfy.sample.prepare_noise(latent["samples"], seed)


def sample(model, latent, positive=None, negative=None, cfg=CFG, noise=None, steps=STEPS, **kwargs):
    """What the host's KSampler does with this MODEL and latent."""
    return comfy.sample.sample(
        model,
        noise_like(latent) if noise is None else noise,
        steps,
        cfg,
        "euler",
        "ddim_uniform",
        positive or tiny.conditioning(1),
        negative or tiny.conditioning(2),
        latent["samples"],
        denoise=kwargs.pop("denoise", 1.0),
        disable_pbar=True,
        seed=SEED,
        **kwargs,
    )


def predictions(model, x, sigma, positive, negative):
    """The network's noise estimates (unconditional, conditional) at one sigma for a latent already scaled for the network."""
    seen = {}

    def keep(args):
        seen.update(c=args["cond_denoised"].clone(), u=args["uncond_denoised"].clone())
        return args["uncond"]

    def once(denoiser, noise, sigmas, extra_args=None, callback=None, disable=None, **kwargs):
        seen["x"] = x * (sigma**2 + 1) ** 0.5
        denoiser(seen["x"], torch.full((x.shape[0],), float(sigma)), **extra_args)
        return noise

    model = model.clone()
    model.set_model_sampler_cfg_function(keep)
    sampler = comfy.samplers.KSAMPLER(once)
    zeros = torch.zeros_like(x)
    comfy.sample.sample_custom(
        model, zeros, CFG, sampler, torch.tensor([float(sigma), 0.0]), positive, negative, zeros, disable_pbar=True
    )
    return (seen["x"] - seen["u"]) / sigma, (seen["x"] - seen["c"]) / sigma
