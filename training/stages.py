"""From a recipe to a running stage: what each stage starts from, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training import loop, manifest, runstate
from training.config import TrainConfig, from_json
from training.crops import ImageStore
from training.diffusion_task import DiffusionTask
from training.latents import open_bank
from training.model import FaithDiffModel, build_model, initialise_from_vae, zero_alignment
from training.networks import network_spec
from training.vae_files import read_vae, weights_digest
from training.vae_task import VAETask

STAGE_BEFORE = {"align": "prior", "joint": "align"}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a stage is given: the manifest, and for the diffusion stages an exported VAE and the run of the stage before."""

    data: Path
    vae: Path | None = None
    init: Path | None = None


def training_store(config: TrainConfig, data: Path) -> tuple[ImageStore, str]:
    """The training split of a manifest as a store, and its data digest. Raises ValueError if the split is empty."""
    records = [record for record in manifest.read(data) if record.split == "train"]
    if not records:
        raise ValueError(f"expected training pictures in {data}, got none in the split 'train', prepare more pictures")
    store = ImageStore(records, short_side_px=config.store_short_side_px, cache_bytes=config.cache_bytes)
    return store, manifest.data_digest(records)


def averaged_weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A run's weights with what was trained replaced by its EMA."""
    return state["model"] | state["ema"]


def history(state: dict[str, Any]) -> list[dict[str, Any]]:
    """What has been trained so far, oldest first: recipe, steps and seed of each stage."""
    config = from_json(state["config"])
    return [*state["extra"].get("before", []), {"recipe": config.recipe, "steps": state["step"], "seed": config.seed}]


def initial_model(config: TrainConfig, sources: Sources) -> tuple[FaithDiffModel, list[dict[str, Any]]]:
    """The composite as this stage starts, and the stages before. Raises ValueError if the run to start from is missing or
    another stage's."""
    assert sources.vae is not None
    model = build_model(config)
    if config.stage == "prior":
        return model, []
    wanted = STAGE_BEFORE[config.stage]
    if sources.init is None:
        raise ValueError(f"expected --init with a run of stage {wanted} for stage {config.stage}, got none, name its run folder")
    state = runstate.load(sources.init)
    held = from_json(state["config"])
    if held.stage != wanted or held.network != config.network:
        raise ValueError(
            f"expected --init with a run of stage {wanted} and network {config.network}, got stage {held.stage} and "
            f"network {held.network} in {sources.init}, choose another run"
        )
    weights = averaged_weights(state)
    if config.stage == "align":
        model.unet.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("unet.")})
        initialise_from_vae(model, read_vae(sources.vae, network_spec(config.network)))
        zero_alignment(model)
    else:
        model.load_state_dict(weights)
    return model, history(state)


def build_task(config: TrainConfig, sources: Sources, run_dir: Path) -> tuple[loop.Task, dict[str, Any]]:
    """The task of a stage and the facts that its checkpoints keep for the export."""
    store, digest = training_store(config, sources.data)
    if config.stage == "vae":
        return VAETask(config, store), {"data_digest": digest, "before": []}
    if sources.vae is None:
        raise ValueError(f"expected --vae with an exported VAE for stage {config.stage}, got none, name its file")
    if config.latent_crops < 1:
        raise ValueError(
            f"expected latent_crops above 0 for stage {config.stage}, got {config.latent_crops}, add --set latent_crops=4096"
        )
    vae = read_vae(sources.vae, network_spec(config.network))
    model, before = initial_model(config, sources)
    vae_digest = weights_digest(vae)
    bank = open_bank(config, store, vae, vae_digest=vae_digest, data_digest=digest, folder=run_dir.parent)
    return DiffusionTask(config, bank, model), {"data_digest": digest, "vae_digest": vae_digest, "before": before}


def run_stage(config: TrainConfig, sources: Sources, run_dir: Path, *, resume: bool) -> dict[str, float]:
    """Train one stage to its end. Errors as in `loop.train` and `build_task`."""
    if config.threads:
        torch.set_num_threads(config.threads)
    task, extra = build_task(config, sources, run_dir)
    return loop.train(task, config, run_dir, extra=extra, resume=resume)


def describe(config: TrainConfig, sources: Sources) -> str:
    """What --dry-run prints: the resolved settings, the data, and parameters a group."""
    store, digest = training_store(config, sources.data)
    lines = [f"{name} = {value}" for name, value in vars(config).items()]
    lines.append(f"data: {len(store)} pictures, digest {digest[:16]}")
    if config.stage == "vae":
        module, groups = (task := VAETask(config, store)).module, task.groups()
    else:
        module = build_model(config)
        # No bank is made: counting parameters needs no pictures.
        groups = DiffusionTask(config, None, module).groups()  # type: ignore[arg-type]
    total = sum(parameter.numel() for parameter in module.parameters())
    for name, share, members in groups:
        lines.append(
            f"trained: {name}: {sum(value.numel() for value in members.values()):,} parameters at lr {config.lr * share:g}"
        )
    frozen = total - sum(value.numel() for _, _, members in groups for value in members.values())
    lines.append(f"not trained: {frozen:,} parameters")
    return "\n".join(lines)
