"""The stages of the tiny network, one after another, for tests of whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.trainer import QUICK
from training.config.overrides import override
from training.config.recipes import recipe
from training.config.schema import Sources, TrainConfig
from training.stages.stage import build_task, run_stage
from training.tasks.diffusion import DiffusionTask
from training.weights.export import export

BEFORE = {"prior": None, "align": "prior", "joint": "align"}


def make_chain(work: Path, data: Path) -> Path:
    """`work` with the runs vae, prior, align and joint, three steps each, and the exported VAE."""
    base = [*QUICK, "steps=3", "batch_size=2", "crop_px=32"]
    vae = override(recipe("nano-vae"), [*base, "late_crop_px=0", "late_batch_size=0"])
    run_stage(vae, Sources(data=data), work / "vae", resume=False)
    export(work / "vae", work / "vae.safetensors", layout="full", dtype="fp32", data=data, licence="MIT", base_model="")
    for stage in BEFORE:
        config = override(recipe(f"nano-{stage}"), [*base, "latent_crops=12", "target_size_px=32", "validate_every=0"])
        run_stage(config, sources_of(work, data, stage), work / stage, resume=False)
    return work


def sources_of(work: Path, data: Path, stage: str, **others: Any) -> Sources:
    """What a stage of the chain starts from."""
    before = BEFORE[stage]
    return Sources(**{"data": data, "vae": work / "vae.safetensors", "init": work / before if before else None} | others)


def task_of(work: Path, data: Path, config: TrainConfig, **others: Any) -> DiffusionTask:
    """The task that `config`'s stage would run."""
    task, _ = build_task(config, sources_of(work, data, config.stage, **others), work / config.stage)
    assert isinstance(task, DiffusionTask)
    return task
