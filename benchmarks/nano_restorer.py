"""The bundled nano model as a function of a picture, for trying settings on it. Needs the host and the pack importable."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import comfy.sample
import torch
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.no_prompt import FaithDiffNoPrompt
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights

DEMO = Path(__file__).resolve().parents[1] / "demo"
SEED = 42


@cache
def _weights() -> tuple:
    """MODEL, FAITHDIFF_MODEL, VAE."""
    vae = load_nano_vae(*read_weights(str(DEMO / "nano_vae.safetensors")))
    return (*load(str(DEMO / "nano_faithdiff.safetensors")), vae)


class Restorer:
    """Degraded pictures (B, 3, H, W) in [0, 1], sides multiples of 8, restored at any settings without encoding them again."""

    def __init__(self, lq_BCHW: torch.Tensor):
        self.model, faithdiff, self.vae = _weights()
        self.encoded = FaithDiffEncodeLQ.execute(faithdiff, lq_BCHW.movedim(1, -1), 0, self.vae).args
        (self.prompt,) = FaithDiffNoPrompt.execute(self.model).args

    def __call__(
        self,
        *,
        steps: int,
        sampler: str = "euler",
        scheduler: str = "ddim_uniform",
        strength: float = 1.0,
        end_percent: float = 1.0,
        denoise: float = 1.0,
    ) -> torch.Tensor:
        """(B, 3, H, W), before any colour fix."""
        aligned, latent = FaithDiffAlignLatent.execute(self.model, *self.encoded, strength, 0.0, end_percent, "lq").args
        noise = comfy.sample.prepare_noise(latent["samples"], SEED)
        samples = comfy.sample.sample(
            aligned, noise, steps, 1.0, sampler, scheduler, self.prompt, self.prompt, latent["samples"],
            denoise=denoise, disable_pbar=True, seed=SEED,
        )  # fmt: skip
        return self.vae.decode(samples).movedim(-1, 1)
