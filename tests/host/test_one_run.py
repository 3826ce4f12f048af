"""The whole way through the nodes, on the bundled model and photo: what `make check` looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.fidelity.ssim import psnr_db
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.no_prompt import FaithDiffNoPrompt
from comfyui_faithdiff.nodes.sampler import FaithDiffSampler
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from comfyui_faithdiff.nodes.upscale import FaithDiffUpscale
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / "demo"
LQ_PART_PX, SCALE = 64, 2
STEPS = 8  # few, as this has to be quick; the demo takes 20


@pytest.fixture(scope="module")
def bundled():
    """(MODEL, FAITHDIFF_MODEL, VAE) of the nano weights."""
    vae = load_nano_vae(*read_weights(str(DEMO / "nano_vae.safetensors")))
    return *load(str(DEMO / "nano_faithdiff.safetensors")), vae


def photo(name: str, part_px: int) -> torch.Tensor:
    """IMAGE (1, part, part, 3): the middle of a photo of the demo."""
    with Image.open(DEMO / name) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    top, left = ((side - part_px) // 2 for side in pixels.shape[:2])
    return torch.from_numpy(pixels[top : top + part_px, left : left + part_px].copy())[None]


def restored(bundled, image: torch.Tensor, *, strength: float = 1.0) -> torch.Tensor:
    model, faithdiff, vae = bundled
    features, latent = FaithDiffEncodeLQ.execute(faithdiff, image, 0, vae).args
    model, latent = FaithDiffAlignLatent.execute(model, features, latent, strength, 0.0, 1.0, "noise").args
    prompt = FaithDiffNoPrompt.execute(model).args[0]
    options = {"steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0}
    (latent,) = FaithDiffSampler.execute(
        model, seed=42, positive=prompt, negative=prompt, latent_image=latent, **options,
        tile_size=1024, tile_overlap=0.5, tile_batch=0,
    ).args  # fmt: skip
    return FaithDiffColorFix.execute(vae.decode(latent["samples"]), image, "adain").args[0]


def test_the_bundled_model_restores_what_the_photo_shows(bundled):
    """From noise alone: only the alignment can tell the network what is in the photo."""
    twice = {"target": "scale factor", "factor": float(SCALE)}
    image = FaithDiffUpscale.execute(photo("photo_lq.png", LQ_PART_PX), twice).args[0]
    truth = photo("photo_hq.png", LQ_PART_PX * SCALE)
    result = restored(bundled, image)
    assert result.shape == truth.shape and result.min() >= 0 and result.max() <= 1
    blind = restored(bundled, image, strength=0.0)
    aligned_db, blind_db = (psnr_db(picture[0].movedim(-1, 0), truth[0].movedim(-1, 0)) for picture in (result, blind))
    assert aligned_db > blind_db + 5.0  # measured: 10.2 dB between them
