"""A run's EMA weights as a file for the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from faithdiff_core import checkpoint
from faithdiff_core.architecture import config_of, unet_sizes
from faithdiff_core.keymap import diffusers_to_ldm
from faithdiff_core.metadata import FaithDiffMetadata
from faithdiff_core.storage import write_safetensors
from training import runstate
from training.config import TrainConfig, from_json
from training.latents import bank_crop
from training.model import alignment_sizes, lq_encoder_sizes
from training.networks import build_vae, network_spec
from training.stages import averaged_weights, history, training_store
from training.vae_files import fold_latent_statistics, latent_statistics, write_vae

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LAYOUTS = ("full", "adapter")
STATISTICS_CROPS = 256
"""Crops whose latents decide the VAE's normalisation."""


def training_facts(state: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The `faithdiff.training` entry: recipe, steps, data digest, the stages before, and the whole configuration."""
    facts = {name: value for name, value in state["extra"].items() if name != "before"}
    return {"recipe": config.recipe, "steps": state["step"], **facts, "stages": history(state), "config": vars(config)}


def export(run_dir: Path, out: Path, *, layout: str, dtype: str, data: Path | None, licence: str, base_model: str) -> str:
    """Write a run's EMA weights to `out` (atomically) and return one line that says what was written.

    A VAE run needs `data`, to normalise the latents. Raises ValueError for a missing run, a run of the prior alone (it has no
    alignment to export), an unknown layout or dtype."""
    if layout not in LAYOUTS:
        raise ValueError(f"expected --layout {' or '.join(LAYOUTS)}, got {layout!r}, choose one")
    if dtype not in DTYPES:
        raise ValueError(f"expected --dtype {', '.join(DTYPES)}, got {dtype!r}, choose one")
    if out.suffix != ".safetensors":
        raise ValueError(f"expected --out to end in .safetensors, got {out}, rename it")
    state = runstate.load(run_dir)
    config = from_json(state["config"])
    out.parent.mkdir(parents=True, exist_ok=True)
    if config.stage == "vae":
        _export_vae(state, config, out, dtype, data, licence)
    elif config.stage == "prior":
        raise ValueError(f"expected a run of stage vae, align or joint, got prior in {run_dir}, train nano-align from it first")
    else:
        _export_faithdiff(state, config, out, layout, dtype, licence, base_model)
    return f"{out}: {config.recipe} after {state['step']} steps, {dtype}, {out.stat().st_size / 1e6:.2f} MB"


def _export_vae(state: dict[str, Any], config: TrainConfig, out: Path, dtype: str, data: Path | None, licence: str) -> None:
    if data is None:
        raise ValueError("expected --data with the training manifest to normalise the VAE's latents, got none, name it")
    spec = network_spec(config.network)
    vae = build_vae(spec)
    vae.load_state_dict(averaged_weights(state))
    vae.eval()
    store, _ = training_store(config, data)
    side = max(config.crop_px, config.late_crop_px)
    crops = [bank_crop(_with_crop(config, side), store, index).image_CHW for index in range(STATISTICS_CROPS)]
    fold_latent_statistics(vae, *latent_statistics(vae, torch.stack(crops)))
    write_vae(out, vae, spec, dtype=DTYPES[dtype], training=training_facts(state, config), licence=licence)


def _with_crop(config: TrainConfig, crop_px: int) -> TrainConfig:
    from dataclasses import replace

    return replace(config, crop_px=crop_px)


def _export_faithdiff(
    state: dict[str, Any], config: TrainConfig, out: Path, layout: str, dtype: str, licence: str, base_model: str
) -> None:
    spec = network_spec(config.network)
    weights = {name: value.to(DTYPES[dtype]) for name, value in averaged_weights(state).items()}
    unet = {name[len("unet.") :]: value for name, value in weights.items() if name.startswith("unet.")}
    names = diffusers_to_ldm(unet)
    unet_ldm = {names[name]: value for name, value in unet.items()}
    sizes = unet_sizes(unet_ldm, {})
    metadata = FaithDiffMetadata(
        align_attention=config.alignment_mode,
        crop_units="pixel",
        target_size_px=config.target_size_px,
        base_model=base_model,
        license=licence,
        config=config_of(lq_encoder_sizes(spec), alignment_sizes(spec), sizes),
        training=training_facts(state, config),
    )
    parts = checkpoint.FaithDiffParts(
        unet=unet_ldm,
        lq_encoder={name[len("lq_encoder.") :]: value for name, value in weights.items() if name.startswith("lq_encoder.")},
        alignment={name[len("alignment.") :]: value for name, value in weights.items() if name.startswith("alignment.")},
        metadata=metadata,
    )
    assembled = checkpoint.assemble_full(parts) if layout == "full" else checkpoint.assemble_adapter(parts)
    write_safetensors(out, assembled, metadata.to_header())
