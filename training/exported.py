"""Reading an export back into the trainer's own network, to compare its numbers with any other implementation's."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from faithdiff_core.checkpoint import FaithDiffParts, split_state_dict
from faithdiff_core.keymap import ldm_to_diffusers
from faithdiff_core.storage import write_safetensors
from training.crops import time_ids
from training.model import FaithDiffModel
from training.networks import NETWORKS, NetworkSpec
from training.seeds import generator_for


def read_parts(path: Path) -> FaithDiffParts:
    """The parts of an exported file. Raises ValueError if it is missing or no FaithDiff file."""
    if not path.is_file():
        raise ValueError(f"expected an exported FaithDiff file, got {path}, which does not exist; export a run first")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file, got {path} ({error}), export the run again") from error
    return split_state_dict(state, header)


def spec_of(parts: FaithDiffParts) -> NetworkSpec:
    """The named network that the file's widths belong to. Raises ValueError if it is none of ours."""
    encoder = parts.metadata.config.get("lq_encoder", {})
    unet = parts.metadata.config.get("unet", {})
    for spec in NETWORKS.values():
        if list(spec.vae_channels) == list(encoder.get("block_out_channels", ())) and spec.unet_channels[0] == unet.get(
            "model_channels"
        ):
            return spec
    raise ValueError(f"expected the widths of {' or '.join(NETWORKS)}, got {encoder}, use the nodes for this file")


def load_exported(path: Path) -> FaithDiffModel:
    """A full export as the trainer's composite, fp32, in eval mode."""
    parts = read_parts(path)
    if parts.unet is None:
        raise ValueError(f"expected a full export, got an adapter in {path}, export with --layout full")
    model = FaithDiffModel(spec_of(parts), mode=parts.metadata.align_attention, use_alignment=True)
    names = ldm_to_diffusers(parts.unet)
    model.unet.load_state_dict({names[name]: value.float() for name, value in parts.unet.items()})
    model.lq_encoder.load_state_dict({name: value.float() for name, value in parts.lq_encoder.items()})
    model.alignment.load_state_dict({name: value.float() for name, value in parts.alignment.items()})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def reference_noise(
    path: Path, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, features_BCHW: torch.Tensor | None, time_ids_B6: torch.Tensor
) -> torch.Tensor:
    """The trainer's own prediction with an exported file: the noise in `noisy_BCHW` (B, 4, h, w), fp32, without prompt.

    noisy_BCHW is the variance preserving latent (the host's x / sqrt(sigma^2 + 1)); features_BCHW as from `reference_features`,
    None = alignment off; time_ids_B6 = original H, W, crop top, left, target H, W in px."""
    return load_exported(path).predict(noisy_BCHW.float(), timestep_B, time_ids_B6.float(), features_BCHW)


@torch.no_grad()
def reference_features(path: Path, lq_BCHW: torch.Tensor) -> torch.Tensor:
    """The LQ features (B, C, H/8, W/8) of pictures (B, 3, H, W) in [-1, 1], fp32."""
    return load_exported(path).encode_lq(lq_BCHW.float())


def write_reference(path: Path, out: Path, *, height_px: int, width_px: int, seed: int) -> None:
    """Write made-up inputs and the trainer's own numbers for them, so that another process can compare its own.

    Tensors of the .safetensors file (two rows): lq (2, 3, H, W) in [-1, 1]; features; noisy (2, 4, H/8, W/8); timestep (999, 21);
    time_ids (2, 6); noise = the prediction with alignment; noise_unaligned = without it. Prompt-free. Raises ValueError for sizes
    that are no multiple of 32 px."""
    if height_px % 32 or width_px % 32 or min(height_px, width_px) < 32:
        raise ValueError(f"expected a size in multiples of 32 px, got {width_px}x{height_px}, choose for example 256x224")
    model = load_exported(path)
    target_px = read_parts(path).metadata.target_size_px
    generator = generator_for(seed, "reference")
    lq = torch.rand(2, 3, height_px, width_px, generator=generator) * 2 - 1
    noisy = torch.randn(2, 4, height_px // 8, width_px // 8, generator=generator)
    timestep = torch.tensor([999, 21])
    ids = time_ids((height_px, width_px), (0, 0), target_px).expand(2, 6)
    with torch.no_grad():
        features = model.encode_lq(lq)
        tensors = {
            "lq": lq,
            "features": features,
            "noisy": noisy,
            "timestep": timestep,
            "time_ids": ids,
            "noise": model.predict(noisy, timestep, ids, features),
            "noise_unaligned": model.predict(noisy, timestep, ids, None),
        }
    write_safetensors(out, tensors, {"faithdiff.reference": path.name})
