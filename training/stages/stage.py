"""From a recipe and its sources to a running stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from training.batches.latent_cache import LatentCache, open_latent_cache
from training.batches.samples import SampleSource
from training.batches.store import ImageStore, training_store
from training.common.devices import device_of, process_state
from training.common.tensor_files import file_digest
from training.config.schema import Sources, TrainConfig
from training.data.manifest import split_of
from training.loop import loop
from training.loop.task import Task
from training.stages.fidelity import fidelity_task, perceptual_of
from training.stages.texts import open_texts
from training.tasks.diffusion import DiffusionTask
from training.tasks.vae import VAETask
from training.tasks.validation import Validation
from training.weights.initial import check_start, initial_model, load_vae
from training.weights.vae import weights_digest


def build_task(config: TrainConfig, sources: Sources, run_dir: Path) -> tuple[Task, dict[str, Any]]:
    """The task of a stage, on this process's device, and the facts that its checkpoints keep for the export.

    What several processes share on disk (latents, prompts) is made by the main one while the others wait.

    Raises:
        ValueError: sources that are missing or do not fit.
    """
    store, digest = training_store(config, sources.data)
    device = device_of(config.device)
    if config.stage == "vae":
        return VAETask(config, store), {"data_digest": digest, "before": []}
    vae = load_vae(config, sources, device)
    if config.stage == "decoder":
        before = [{"file": path.name, "sha256": file_digest(path)} for path in (sources.vae,) if path is not None]
        return VAETask(config, store, vae), {"data_digest": digest, "before": before}
    if config.stage == "fidelity":
        return fidelity_task(config, sources, run_dir, store=store, digest=digest, vae=vae, device=device)
    model, before = initial_model(config, sources)
    facts: dict[str, Any] = {"data_digest": digest, "vae_digest": weights_digest(vae), "before": before}
    texts = open_texts(config, sources, device)
    cache = _latent_cache(config, store, vae, facts, run_dir.parent, device)
    source = SampleSource(config, store, cache)
    validation = None
    if config.validate_every:
        validation = Validation(config, split_of(sources.data, "val"), vae, texts, device)
    needs_vae = None if cache is not None else vae
    return DiffusionTask(config, source, model, device=device, vae=needs_vae, texts=texts, validation=validation), facts


def _latent_cache(
    config: TrainConfig, store: ImageStore, vae: AutoencoderKL, facts: dict[str, Any], folder: Path, device: torch.device
) -> LatentCache | None:
    if not config.latent_crops:
        return None
    with process_state(config.device).main_process_first():
        return open_latent_cache(
            config, store, vae, vae_digest=facts["vae_digest"], data_digest=facts["data_digest"], folder=folder, device=device
        )


def run_stage(config: TrainConfig, sources: Sources, run_dir: Path, *, resume: bool) -> dict[str, float]:
    """Train one stage to its end. Errors as in `loop.train` and `build_task`."""
    if config.threads:
        torch.set_num_threads(config.threads)
    task, extra = build_task(config, sources, run_dir)
    return loop.train(task, config, run_dir, extra=extra, resume=resume)


def describe(config: TrainConfig, sources: Sources) -> str:
    """What --dry-run prints: the resolved settings, the data, what trains, and the memory it takes.

    Raises:
        ValueError: sources that are missing, or an `init` that the run could not start from.
    """
    from training.stages.memory import report

    check_start(config, sources)
    perceptual = perceptual_of(config, sources, torch.device("cpu"))
    store, digest = training_store(config, sources.data)
    lines = [f"{name} = {value}" for name, value in vars(config).items()]
    lines.append(f"data: {len(store)} pictures, digest {digest[:16]}")
    return "\n".join([*lines, report(config, perceptual)])
