"""What the fidelity decoder adds to VAE Decode: FaithDiff Decode with it beside the same without. Made-up weights, at the
nano model's widths or SDXL's.

    python benchmarks/run.py decode [--size nano|sdxl] [--px 512]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import comfy.ldm.models.autoencoder
import comfy.model_management as mm
import comfy.sd
import host_process
import made_up
import torch
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.network import FidelityDecoder
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX
from comfyui_faithdiff.nodes.decode import pictures
from comfyui_faithdiff.nodes.seam.bundle import build_patcher
from rows import Options, Row, compared, in_turn
from support import tiny

DECODERS = {
    "nano": FidelityDecoderSizes(widths=(32, 64, 128), blocks=(1, 2, 4), feature_channels=128),  # training/model/networks.py
    "sdxl": FidelityDecoderSizes(),
}
VAES = {
    "nano": {"ch": 32, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 1},
    "sdxl": {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2},
}
"""In the host's words."""
PX, ROUNDS = 512, 3


def decode(options: Options) -> Sequence[Row]:
    """Whole decoding of one picture: with the fidelity decoder / without.

    Raises:
        ValueError: a size without a VAE of its own.
    """
    if options.size not in DECODERS:
        raise ValueError(
            f"expected --size {' or '.join(DECODERS)} for decode, got {options.size}: Vega has SDXL's VAE; take sdxl"
        )
    made, vae, side_px = made_up.made_up("nano"), _vae(options.size), options.px or PX
    sizes = DECODERS[options.size]
    cells = side_px // LATENT_CELL_PX
    generator = torch.Generator().manual_seed(5)
    latents_BCHW = torch.randn(1, 4, cells, cells, generator=generator)
    values_1CHW = torch.randn(1, sizes.feature_channels, cells, cells, generator=generator)
    features = replace(made_up.features_of(made, side_px, side_px), features_BCHW=values_1CHW)
    weights = tiny.random_weights(FidelityDecoder(sizes, operations=torch.nn, device="meta").state_dict(), 6)
    devices = (mm.vae_device(), mm.vae_offload_device())
    patcher = build_patcher(
        lambda operations, **at: FidelityDecoder(sizes, operations=operations, **at), weights, "fidelity decoder", devices, False
    )
    whole = [torch.ones(1, 1, 1, 1)]
    with torch.inference_mode():  # as the host runs its nodes
        ways = {
            "with fidelity": lambda: pictures(vae, latents_BCHW, features, whole, patcher),
            "plain": lambda: pictures(vae, latents_BCHW, features, whole, None),
        }
        seconds = in_turn(ways, rounds=options.rounds or ROUNDS, clock=host_process.clock(options.device))
    millions = sum(value.numel() for value in weights.values()) / 1e6
    notes = f"{side_px} px; {millions:.2f} million weights"
    return [compared(f"decode, {options.size}", seconds, "with fidelity", "plain", notes=notes)]


def _vae(size: str) -> comfy.sd.VAE:
    ddconfig = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "dropout": 0.0}
    params = {"ddconfig": {**ddconfig, "attn_resolutions": [], **VAES[size]}, "embed_dim": 4}
    with torch.device("meta"):
        names = comfy.ldm.models.autoencoder.AutoencoderKL(**params).state_dict()
    return comfy.sd.VAE(sd=tiny.random_weights(names, 7), config={"params": params})
