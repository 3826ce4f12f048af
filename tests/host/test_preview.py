"""What the host shows while the nano model samples, and that SDXL-size models keep the host's own previews."""

from __future__ import annotations

from pathlib import Path

import comfy.latent_formats
import latent_preview
import numpy as np
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.seam.nano_vae import NanoLatents, load_nano_vae
from comfyui_faithdiff.nodes.seam.unet_loader import _model_config
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from PIL import Image
from support import tiny

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture
def encoded():
    """The middle 256 px of the demo photo at the latent's size, (3, 32, 32) in [0, 1], and its latent as the sampler has it."""
    photo_HWC = torch.from_numpy(np.asarray(Image.open(DEMO / "photo_hq.png").convert("RGB"), np.float32) / 255)[20:276, 90:346]
    with torch.inference_mode():
        latent = load_nano_vae(*read_weights(str(DEMO / "nano_vae.safetensors"))).encode(photo_HWC[None])
    small_CHW = torch.nn.functional.avg_pool2d(photo_HWC.movedim(-1, 0), 8)
    return small_CHW, comfy.latent_formats.SDXL().process_in(latent)


def drawn(latent_format, samples, monkeypatch, method) -> torch.Tensor:
    monkeypatch.setattr(args, "preview_method", method)
    previewer = latent_preview.get_previewer(torch.device("cpu"), latent_format)
    picture = previewer.decode_latent_to_preview_image("JPEG", samples)[1]
    return torch.from_numpy(np.array(picture, np.float32) / 255).movedim(-1, 0)


@pytest.mark.parametrize("method", [LatentPreviewMethod.Auto, LatentPreviewMethod.TAESD])
def test_the_preview_of_a_photo_looks_like_it(encoded, monkeypatch, method):
    photo_CHW, samples = encoded
    model, _ = load(str(DEMO / "nano_faithdiff.safetensors"))
    formats = model.model.latent_format, comfy.latent_formats.SDXL()
    ours, theirs = ((drawn(f, samples, monkeypatch, method) - photo_CHW).square().mean().sqrt() for f in formats)
    assert ours < 0.04  # measured: 0.02 and 0.23
    assert theirs > 0.15


def test_the_latents_scale_stays_sdxls():
    sdxl, nano = comfy.latent_formats.SDXL(), NanoLatents()
    samples = torch.ones(1, 4, 2, 2)
    assert torch.equal(nano.process_in(samples), sdxl.process_in(samples))
    assert torch.equal(nano.process_out(samples), sdxl.process_out(samples))


@pytest.mark.parametrize(("width", "own"), [(64, True), (320, False)])
def test_only_narrow_networks_have_previews_of_their_own(width, own):
    """A network of SDXL's width, on no memory: its latents are those of SDXL's VAE."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = {**tiny.UNET_CONFIG, "model_channels": width}
    net = UNetModel(**config, dtype=torch.float32, device=torch.device("meta"), operations=comfy.ops.disable_weight_init)
    latent_format = _model_config(net.state_dict(), {}).latent_format
    assert type(latent_format) is (NanoLatents if own else comfy.latent_formats.SDXL)
