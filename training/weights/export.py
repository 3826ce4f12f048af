"""A run's weights (their average, where it has one) as files for the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from faithdiff_core.architecture import config_of, unet_sizes
from faithdiff_core.files import checkpoint
from faithdiff_core.files.checks import check_finite
from faithdiff_core.files.keymap import diffusers_to_ldm
from faithdiff_core.files.metadata import FaithDiffMetadata
from faithdiff_core.files.storage import write_safetensors
from training.batches.latent_cache import cached_crop
from training.batches.store import training_store
from training.common.results import require_own
from training.common.tensor_files import State
from training.config.overrides import from_json
from training.config.schema import VAE_STAGES, TrainConfig
from training.loop import checkpoints
from training.model.faithdiff import spec_for
from training.model.lora import base_unet, has_lora, host_lora, merged_unet
from training.model.networks import build_vae, network_spec
from training.weights.check import is_own
from training.weights.fidelity_files import require_name, write_fidelity_decoder
from training.weights.initial import averaged_weights, history, part_of
from training.weights.vae import fold_latent_statistics, latent_statistics, write_vae

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LAYOUTS = ("full", "adapter")
STATISTICS_CROPS = 256
"""Crops whose latents decide the VAE's normalisation."""


def training_facts(state: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The `faithdiff.training` entry: recipe, steps, data digest, what came before, and the whole configuration."""
    facts = {name: value for name, value in state["extra"].items() if name != "before"}
    return {"recipe": config.recipe, "steps": state["step"], **facts, "stages": history(state), "config": vars(config)}


def export(run_dir: Path, out: Path, *, layout: str, dtype: str, data: Path | None, licence: str, base_model: str) -> str:
    """Write a run's weights to `out` (atomically) and return one line that says what was written.

    A VAE run needs `data`, to normalise the latents.

    Raises:
        ValueError: a missing run, a run of the prior alone (it has no alignment to export) or of an ablation that the nodes do
            not know, a fidelity decoder under a name that the nodes do not list, an unknown layout or dtype, or weights too large
            for it.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"expected --layout {' or '.join(LAYOUTS)}, got {layout!r}, choose one")
    if dtype not in DTYPES:
        raise ValueError(f"expected --dtype {', '.join(DTYPES)}, got {dtype!r}, choose one")
    if out.suffix != ".safetensors":
        raise ValueError(f"expected --out to end in .safetensors, got {out}, rename it")
    for file in (out, _lora_beside(out)):
        require_own(file, "FaithDiff .safetensors", is_own)
    state = checkpoints.load(run_dir)
    config = from_json(state["config"])
    if config.stage == "prior":
        raise ValueError(
            f"expected a run of stage vae, align or joint, got prior in {run_dir}, train a stage align from it first"
        )
    if config.lq_features == "last":
        raise ValueError(
            f"expected a run with penultimate LQ features, got lq_features=last in {run_dir}, an ablation that the nodes do not "
            "know; look at its validation pictures, or train with --set lq_features=penultimate"
        )
    if config.stage == "fidelity":
        require_name(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    if config.stage in VAE_STAGES:
        _export_vae(state, config, out, dtype, data, licence)
    elif config.stage == "fidelity":
        weights = _narrow("fidelity decoder", DTYPES[dtype], part_of(averaged_weights(state), "fidelity_decoder").items())
        facts = training_facts(state, config)
        write_fidelity_decoder(out, weights, network_spec(config.network).fidelity_decoder, training=facts, licence=licence)
    else:
        facts = FaithDiffMetadata(base_model=base_model, license=licence, training=training_facts(state, config))
        notes = write_faithdiff(out, averaged_weights(state), config, facts, layout=layout, dtype=DTYPES[dtype])
    line = f"{out}: {config.recipe} after {state['step']} steps, {dtype}, {out.stat().st_size / 1e6:.2f} MB"
    return "; ".join([line, *notes])


def write_faithdiff(
    out: Path, weights: State, config: TrainConfig, facts: FaithDiffMetadata, *, layout: str, dtype: torch.dtype
) -> list[str]:
    """Write a composite's state dict as a file for the nodes; returns what else is worth saying.

    "full": one file, a LoRA merged into the UNet. "adapter": no UNet; the LoRA, if one was trained, goes beside it as
    NAME.lora.safetensors. `facts`: where the weights come from; the rest of the metadata follows from `config`.

    Raises:
        ValueError: weights that are not finite, or too large for `dtype`.
    """
    unet, notes = part_of(weights, "unet"), []
    names = diffusers_to_ldm(base_unet(unet))
    sizes = unet_sizes({names[name]: value for name, value in base_unet(unet).items()}, {})
    spec = spec_for(config)
    metadata = replace(
        facts,
        align_attention=config.alignment_mode,
        crop_units="pixel",
        target_size_px=config.target_size_px,
        config=config_of(spec.encoder, spec.alignment, sizes),
    )
    parts = checkpoint.FaithDiffParts(
        unet=None if layout == "adapter" else _narrow("UNet", dtype, ((names[n], v) for n, v in merged_unet(unet))),
        lq_encoder=_narrow("LQ encoder", dtype, part_of(weights, "lq_encoder").items()),
        alignment=_narrow("alignment module", dtype, part_of(weights, "alignment").items()),
        metadata=metadata,
    )
    if layout == "adapter" and has_lora(config):
        beside = _lora_beside(out)
        lora = _narrow("LoRA", dtype, host_lora(unet).items())
        write_safetensors(beside, lora, {k: v for k, v in metadata.to_header().items() if k in LORA_HEADER})
        notes.append(f"{beside}: the UNet's LoRA, for Load LoRA at strength 1")
    elif layout == "adapter" and "unet" in config.parts:
        notes.append("the trained UNet is left out (--layout full writes it)")
    assembled = checkpoint.assemble_full(parts) if layout == "full" else checkpoint.assemble_adapter(parts)
    write_safetensors(out, assembled, metadata.to_header())
    return notes


def _lora_beside(out: Path) -> Path:
    return out.with_suffix(".lora.safetensors")


LORA_HEADER = ("faithdiff.base_model", "faithdiff.license", "faithdiff.training")


def _narrow(what: str, dtype: torch.dtype, weights: Iterable[tuple[str, torch.Tensor]]) -> State:
    """The weights in `dtype`, finite both before and after."""
    state, overflowed = {}, []
    for name, value in weights:
        check_finite({name: value}, what)
        state[name] = value.to(dtype)
        if value.numel() and value.abs().max() > torch.finfo(dtype).max:
            overflowed.append(name)
    if overflowed:
        limit = f"{torch.finfo(dtype).max:g}"
        raise ValueError(
            f"expected weights within {limit} in the {what}, got larger ones in {len(overflowed)} tensors "
            f"({', '.join(overflowed[:3])}), export with --dtype bf16 or fp32"
        )
    return state


def _export_vae(state: dict[str, Any], config: TrainConfig, out: Path, dtype: str, data: Path | None, licence: str) -> None:
    spec = network_spec(config.network)
    vae = build_vae(spec)
    vae.load_state_dict(averaged_weights(state))
    vae.eval()
    if config.stage == "vae":  # a decoder run started from an export, whose latents are normalised
        _normalise(vae, config, data)
    write_vae(out, vae, spec, dtype=DTYPES[dtype], training=training_facts(state, config), licence=licence)


def _normalise(vae: AutoencoderKL, config: TrainConfig, data: Path | None) -> None:
    if data is None:
        raise ValueError("expected --data with the training manifest to normalise the VAE's latents, got none, name it")
    store, _ = training_store(config, data)
    cut = replace(config, crop_px=max(config.crop_px, config.late_crop_px))
    crops = [cached_crop(cut, store, index).image_CHW for index in range(STATISTICS_CROPS)]
    fold_latent_statistics(vae, *latent_statistics(vae, torch.stack(crops)))
