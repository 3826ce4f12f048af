"""Configurations, runs and files of the tiny network for the tests of what it starts from and what it leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn

from faithdiff_core.files.checkpoint import FaithDiffParts, assemble_released
from faithdiff_core.files.keymap import diffusers_to_ldm
from faithdiff_core.files.metadata import FaithDiffMetadata
from training.config.overrides import to_json
from training.config.schema import TrainConfig
from training.loop import checkpoints
from training.model.faithdiff import FaithDiffComposite, build_model
from training.tasks.diffusion import trained_groups


def tiny(**settings: Any) -> TrainConfig:
    """A joint run of the tiny network in fp32, with these settings replaced."""
    given: dict[str, Any] = {"recipe": "test", "stage": "joint", "network": "tiny", "precision": "fp32", "target_size_px": 64}
    return TrainConfig(**given | {"steps": 1, "batch_size": 1, "lr": 1e-4} | settings)


def untrained_parts() -> FaithDiffParts:
    """A nano model of spatial alignment, taken apart as its file would be."""
    model = build_model(tiny(network="nano", alignment_mode="spatial"))
    unet = model.unet.state_dict()
    names = diffusers_to_ldm(unet)
    return FaithDiffParts(
        unet={names[name]: value for name, value in unet.items()},
        lq_encoder=model.lq_encoder.state_dict(),
        alignment=model.alignment.state_dict(),
        metadata=FaithDiffMetadata(),
    )


def write_run(folder: Path, config: TrainConfig, model: nn.Module, *, ema: dict[str, torch.Tensor] | None = None) -> Path:
    """A run folder that holds `model` after one step; `ema` by name, {} = a run without."""
    names = {name for _, _, members in trained_groups(model, config) for name in members}
    state = model.state_dict()
    checkpoints.begin(folder, {name: value for name, value in state.items() if name not in names})
    checkpoint = {
        "config": to_json(config),
        "step": 1,
        "trained": {name: state[name] for name in names},
        "optimiser": {},
        "ema": ema or {},
        "extra": {"data_digest": "d" * 64, "before": [{"recipe": "before", "steps": 2, "seed": 0}]},
    }
    checkpoints.save(folder, checkpoint, keep=1)
    return folder


def inputs(batch: int = 2, side_px: int = 64) -> dict[str, torch.Tensor]:
    """Seeded arguments of the composite's forward."""
    generator = torch.Generator().manual_seed(3)
    cells = side_px // 8
    return {
        "noisy_BCHW": torch.randn(batch, 4, cells, cells, generator=generator),
        "timestep_B": torch.tensor([400, 10])[:batch],
        "time_ids_B6": torch.full((batch, 6), 64.0),
        "lq_BCHW": torch.rand(batch, 3, side_px, side_px, generator=generator) * 2 - 1,
    }


def made_up_model(config: TrainConfig, seed: int = 0) -> FaithDiffComposite:
    """The network of `config` with random weights everywhere, what starts at zero included."""
    model = build_model(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        scale = 1 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.02
        near = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
        value = near + scale * torch.randn(parameter.shape, generator=generator)
        parameter.data = value.to(parameter.dtype)
    return model


def write_released(path: Path, model: FaithDiffComposite) -> Path:
    """The model as a pickle in the official names, like FaithDiff.bin."""
    names = diffusers_to_ldm(model.unet.state_dict())
    parts = FaithDiffParts(
        unet={names[name]: value for name, value in model.unet.state_dict().items()},
        lq_encoder=model.lq_encoder.state_dict(),
        alignment=model.alignment.state_dict(),
        metadata=FaithDiffMetadata(),
    )
    torch.save(assemble_released(parts), path)
    return path


def write_diffusers_base(folder: Path, unet: nn.Module, vae: nn.Module, *, variant: str = "") -> Path:
    """The UNet and the VAE as a diffusers folder."""
    for part, module in (("unet", unet), ("vae", vae)):
        (folder / part).mkdir(parents=True)
        state = {name: value.contiguous() for name, value in module.state_dict().items()}
        save_file(state, folder / part / f"diffusion_pytorch_model{variant}.safetensors")
    return folder


def write_checkpoint_file(path: Path, unet: nn.Module, vae: AutoencoderKL) -> Path:
    """The UNet and the VAE as one file in the original names."""
    names = diffusers_to_ldm(unet.state_dict())
    state = {f"model.diffusion_model.{names[name]}": value for name, value in unet.state_dict().items()}
    state |= {f"first_stage_model.{_ldm_vae(name)}": _as_conv(name, value) for name, value in vae.state_dict().items()}
    state["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(77)
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


_VAE_RULES = (
    (r"\.mid_block\.resnets\.0", ".mid.block_1"),
    (r"\.mid_block\.resnets\.1", ".mid.block_2"),
    (r"\.mid_block\.attentions\.0", ".mid.attn_1"),
    (r"\.down_blocks\.(\d)\.resnets\.(\d)", r".down.\1.block.\2"),
    (r"\.down_blocks\.(\d)\.downsamplers\.0", r".down.\1.downsample"),
    (r"\.up_blocks\.(\d)\.resnets\.(\d)", r".up.\1.block.\2"),
    (r"\.up_blocks\.(\d)\.upsamplers\.0", r".up.\1.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_([qkv])", r"attn_1.\1"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
)


def _ldm_vae(name: str) -> str:
    """The original name of a VAE's parameter; its levels on the way up are counted from the finest."""
    for pattern, replacement in _VAE_RULES:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\.up\.(\d)", lambda found: f".up.{3 - int(found[1])}", name)


def _as_conv(name: str, value: torch.Tensor) -> torch.Tensor:
    """The original attention has 1x1 convolutions."""
    return value[:, :, None, None] if ".attentions." in name and value.ndim == 2 else value
