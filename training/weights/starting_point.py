"""What `--init` brings: the parts of a run, or of a FaithDiff file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faithdiff_core.files.checkpoint import alignment_state_for
from faithdiff_core.files.keymap import ldm_to_diffusers
from faithdiff_core.files.shards import INDEX_PATTERN
from training.common.devices import warn
from training.common.weight_files import State, file_digest, read_parts, weight_files
from training.config.overrides import from_json
from training.config.schema import VAE_STAGES, TrainConfig
from training.loop import checkpoints
from training.model.lora import base_unet, has_lora, lora_state, merged_unet

History = list[dict[str, Any]]
"""Oldest first: `{"recipe", "steps", "seed"}` of a stage, `{"file", "sha256"}` of a file of weights."""


@dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """Parts to start from, None where there is none. `unet` has diffusers' names; `lora` is its factors, if they train on."""

    unet: State | None = None
    lora: State | None = None
    lq_encoder: State | None = None
    alignment: State | None = None
    alignment_mode: str = "pointwise"
    lq_features: str = "penultimate"
    history: History = field(default_factory=list)

    def why_not_aligned(self, config: TrainConfig, layers: int) -> str | None:
        """Why this alignment module cannot be the one of `config`, which has so many layers; None if it can."""
        assert self.alignment is not None
        held = len({found[1] for name in self.alignment if (found := re.match(r"blocks\.(\d+)\.", name))})
        if self.lq_features != config.lq_features:
            return f"--init has {self.lq_features} features and this run {config.lq_features}"
        if held != layers:
            return f"--init has {held} layers and this run {layers}"
        if self.alignment_mode == config.alignment_mode:
            return None
        if config.alignment_mode == "spatial" and (not held or "blocks.0.to_q.weight" in self.alignment):
            return None
        return f"--init is {self.alignment_mode} and this run {config.alignment_mode}"

    def alignment_for(self, mode: str) -> State:
        """The alignment module's weights for this mode."""
        assert self.alignment is not None
        if mode != self.alignment_mode:
            warn("alignment module: queries and keys of a pointwise file, which were never trained to attend over positions")
        return alignment_state_for(self.alignment, mode, folded=False)


def read_starting_point(path: Path, config: TrainConfig) -> StartingPoint:
    """The parts of a run folder or a FaithDiff file (or a folder of its shards, with their index).

    Raises:
        ValueError: it is neither, or a run of another network.
    """
    is_run = path.is_dir() and not any(path.glob(INDEX_PATTERN))
    return _of_run(path, config) if is_run else _of_file(path)


def averaged_weights(state: dict[str, Any]) -> State:
    """A run's weights with what was trained replaced by its average, where it has one."""
    return state["model"] | (state.get("ema") or {})


def history(state: dict[str, Any]) -> History:
    """What led to a run's weights, the run itself last."""
    config = from_json(state["config"])
    return [*state["extra"].get("before", []), {"recipe": config.recipe, "steps": state["step"], "seed": config.seed}]


def part_of(weights: State, part: str) -> State:
    """The weights of one part, without its name before theirs."""
    return {name[len(part) + 1 :]: value for name, value in weights.items() if name.startswith(part + ".")}


def _of_run(path: Path, config: TrainConfig) -> StartingPoint:
    state = checkpoints.load(path)
    held = from_json(state["config"])
    if held.stage in VAE_STAGES:
        raise ValueError(
            f"expected --init with a run of stage prior, align or joint, got {held.stage} in {path}, export it and use --vae"
        )
    if held.network != config.network:
        raise ValueError(
            f"expected --init with a run of network {config.network}, got {held.network} in {path}, choose another run or "
            f"--set network={held.network}"
        )
    weights = averaged_weights(state)
    unet = part_of(weights, "unet")
    lora = None
    if has_lora(held):
        if _same_lora(held, config):
            unet, lora = base_unet(unet), lora_state(unet)
        else:
            unet = dict(merged_unet(unet))
            if has_lora(config):
                warn(f"LoRA: that of {path} is merged into the UNet, and the new one counts from there")
    aligned = held.stage != "prior"  # a prior's other parts were never used
    return StartingPoint(
        unet=unet,
        lora=lora,
        lq_encoder=part_of(weights, "lq_encoder") if aligned else None,
        alignment=part_of(weights, "alignment") if aligned else None,
        alignment_mode=held.alignment_mode,
        lq_features=held.lq_features,
        history=history(state),
    )


def _same_lora(held: TrainConfig, config: TrainConfig) -> bool:
    return has_lora(config) and held.lora_rank == config.lora_rank


def _of_file(path: Path) -> StartingPoint:
    parts = read_parts(path)
    if parts.note:
        warn(f"{path}: {parts.note}")
    if parts.lora:
        warn(f"{path}: its LoRA is left out, because it has no UNet to merge it into")
    unet = None
    if parts.unet is not None:
        names = ldm_to_diffusers(parts.unet)
        unet = {names.get(name, name): value for name, value in parts.unet.items()}
    return StartingPoint(
        unet=unet,
        lq_encoder=parts.lq_encoder,
        alignment=parts.alignment,
        alignment_mode=parts.metadata.align_attention,
        history=[
            *parts.metadata.training.get("stages", []),
            *({"file": each.name, "sha256": file_digest(each)} for each in weight_files(path)),
        ],
    )
