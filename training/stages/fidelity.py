"""The fidelity decoder's stage: the frozen model restores its crops once, then it is no longer needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from training.batches.restored_cache import Origin, RestoredCache, cache_folder, make_restored_cache, open_restored_cache
from training.batches.restored_crops import FrozenModel, RestoredCrops
from training.batches.store import ImageStore
from training.common.devices import process_state
from training.config.schema import Sources, TrainConfig
from training.data.manifest import Record, data_digest, split_of
from training.metrics.perceptual import PerceptualDistance, open_perceptual
from training.model.faithdiff import FaithDiffComposite
from training.stages.texts import open_texts
from training.tasks.fidelity import FidelityTask, build_network
from training.tasks.fidelity_validation import FidelityValidation
from training.weights.initial import initial_model
from training.weights.vae import weights_digest


def fidelity_task(
    config: TrainConfig, sources: Sources, run_dir: Path, *, store: ImageStore, digest: str, vae: AutoencoderKL,
    device: torch.device,
) -> tuple[FidelityTask, dict[str, Any]]:  # fmt: skip
    """The task, and the facts that its checkpoints keep; as `stage.build_task`, with what that has read already.

    Raises:
        ValueError: sources that are missing or do not fit; a model without a trained alignment module.
    """
    perceptual = perceptual_of(config, sources, device)
    model, before = initial_model(config, sources)
    model.eval().requires_grad_(False)
    facts: dict[str, Any] = {
        "data_digest": digest,
        "vae_digest": weights_digest(vae),
        "model_digest": weights_digest(model),
        "before": before,
    }
    if perceptual is not None:
        facts["perceptual"] = f"{perceptual.name} ({perceptual.facts})"
    texts = open_texts(config, sources, device)
    frozen = FrozenModel(model=model, vae=vae, texts=texts, device=device)
    held_out = split_of(sources.data, "val") if config.validate_every else []
    stores = {"train": (store, config.restored_crops)}
    if held_out and config.validation_pictures:
        own = ImageStore(held_out, short_side_px=config.store_short_side_px, cache_bytes=config.cache_bytes)
        stores["val"] = (own, config.validation_pictures)
    caches: dict[str, RestoredCache] = {}
    for split, (pictures, count) in stores.items():
        origin = Origin(
            model=facts["model_digest"],
            vae=facts["vae_digest"],
            data=data_digest(pictures.records),
            texts="" if texts is None else f"{texts.encoder_id} {_captions_digest(pictures.records)}",
        )
        folder = cache_folder(config, origin, run_dir.parent)
        with process_state(config.device).main_process_first():
            if process_state(config.device).is_main_process:
                _for_making(model, vae, device)
                make_restored_cache(folder, RestoredCrops(config, pictures, frozen, split), split, count)
            caches[split] = open_restored_cache(folder, split, count)
    encoder = None if config.restored_features else model.lq_encoder.to(device)
    network = build_network(config, encoder)
    validation = FidelityValidation(caches["val"], config.restored_side_px, device) if "val" in caches else None
    task = FidelityTask(config, caches["train"], network, device=device, perceptual=perceptual, validation=validation)
    return task, facts


def perceptual_of(config: TrainConfig, sources: Sources, device: torch.device) -> PerceptualDistance | None:
    """What perceptual_weight weighs, None where the run has none. Errors as in `open_perceptual`."""
    wanted = config.stage == "fidelity" and config.perceptual_weight > 0
    return open_perceptual(sources.perceptual, device) if wanted else None


def _for_making(model: FaithDiffComposite, vae: AutoencoderKL, device: torch.device) -> None:
    """Onto the device. Channels last: convolutions of single crops then take a fifth less time on a CPU (measured at 256 px)."""
    nn.Module.to(model, device)
    to: Any = nn.Module.to  # torch's annotation leaves memory_format out
    for part in (model.lq_encoder, vae):
        to(part, memory_format=torch.channels_last)


def _captions_digest(records: list[Record]) -> str:
    """Of the prompts, which the pictures' digest leaves out."""
    lines = (f"{record.key}\n{record.caption}\n" for record in records)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
