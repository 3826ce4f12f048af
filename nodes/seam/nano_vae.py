"""The host's VAE at the nano model's widths, which its own loader does not know, and the previews of its latents."""

from __future__ import annotations

import json

import comfy.diffusers_convert
import comfy.latent_formats
import comfy.ldm.models.autoencoder
import comfy.sd
import torch

from ...faithdiff_core.files.checks import check_finite, check_state

HOST_NORM_GROUPS = 32
"""Of its VAE class, until `_set_norm_groups`."""
SDXL_MODEL_CHANNELS = 320
"""Width of SDXL's UNet and of all distilled from it (SSD-1B, Vega, KOALA), which share its VAE. Narrower ones are nano."""
RGB_OF_LATENT = (
    (0.5151, 0.1826, 0.1207),
    (0.1283, 0.3253, 0.1508),
    (0.0157, 0.1217, 0.3606),
    (0.0093, -0.0018, -0.0044),
)
"""Of the bundled nano VAE: red, green and blue in [-1, 1] for each of its four channels, by least squares over three photos
(`benchmarks/nano_preview.py`). On a fourth, the demo's, the preview is 0.02 from the photo at its size, rms of values in [0, 1];
with SDXL's factors 0.23."""
RGB_BIAS = (-0.0690, -0.1412, -0.1930)


class NanoLatents(comfy.latent_formats.SDXL):
    """SDXL's scale, to which nano VAEs are trained, with previews of their own.

    TAESD's decoder for SDXL would draw false colours, too: without a name of one the host draws by the factors.
    """

    def __init__(self):
        super().__init__()
        self.latent_rgb_factors = [list(row) for row in RGB_OF_LATENT]
        self.latent_rgb_factors_bias = list(RGB_BIAS)
        self.taesd_decoder_name = None


def load_nano_vae(state: dict[str, torch.Tensor], header: dict[str, str]) -> comfy.sd.VAE:
    """A VAE from weights in diffusers' or the host's names.

    Raises:
        ValueError: no nano VAE, or one whose weights are missing, of another shape or not finite.
    """
    try:
        config = json.loads(header["faithdiff.vae_config"])
        widths, groups = config["block_out_channels"], config["norm_groups"]
        numbers = [*widths, groups, config["layers_per_block"], config["latent_channels"]]
        sound = isinstance(widths, list) and bool(widths) and all(type(n) is int and n > 0 for n in numbers)
        sound = sound and not any(w % step for w in widths for step in (widths[0], groups, HOST_NORM_GROUPS))
        # A VAE of these sizes is built to compare with: the weights must be of their order.
        largest_side = max(side for tensor in state.values() for side in tensor.shape)
        sound = sound and max(numbers) <= largest_side and len(widths) * config["layers_per_block"] <= len(state)
    except (KeyError, TypeError, IndexError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise ValueError("expected a nano VAE with faithdiff.vae_config in its header, got another file; use Load VAE for it")
    if any(name.startswith("decoder.up_blocks.") for name in state):
        state = comfy.diffusers_convert.convert_vae_state_dict(state)
    check_finite(state, "nano VAE")
    params = _host_config(config)
    with torch.device("meta"):
        expected = comfy.ldm.models.autoencoder.AutoencoderKL(**params).state_dict()
    check_state(expected, state, "nano VAE")
    vae = comfy.sd.VAE(sd=state, config={"params": params})
    assert vae.first_stage_model is not None, "made by the config above"
    _set_norm_groups(vae.first_stage_model, groups)
    return vae


def _set_norm_groups(module: torch.nn.Module, groups: int) -> None:
    """Sets the groups of all norms.

    The host's VAE class has 32 whatever the width; at 32 channels that would be instance norm, which loses brightness.
    """
    for norm in module.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.num_groups = groups


def _host_config(config: dict) -> dict:
    """Diffusers' words for an AutoencoderKL to the host's."""
    widths = config["block_out_channels"]
    ddconfig = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": widths[0],
        "ch_mult": [w // widths[0] for w in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"ddconfig": ddconfig, "embed_dim": config["latent_channels"]}
