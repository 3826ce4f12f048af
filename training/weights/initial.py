"""What a run starts from: which part comes from which file.

* UNet: `init` (a run, or a FaithDiff file with a UNet), else `base`; a prior may start from nothing.
* LQ encoder: `init` where it has one, else the VAE's encoder (official train_SDXL_stage_1.py:622-628).
* Alignment module: `init` where it has a fitting one, else seeded weights whose output is zero.

`StartingPoint` is what `init` brings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from faithdiff_core.files.checkpoint import alignment_state_for
from faithdiff_core.files.checks import check_state
from faithdiff_core.files.keymap import ldm_to_diffusers
from faithdiff_core.files.shards import INDEX_PATTERN
from training.common.devices import warn
from training.common.tensor_files import State, file_digest, read_parts, weight_files
from training.config.overrides import from_json
from training.config.schema import VAE_STAGES, Sources, TrainConfig
from training.loop import checkpoints
from training.model.faithdiff import UNET_DTYPES, FaithDiffComposite, compose, make_part, spec_for, zero_alignment
from training.model.lora import base_unet, has_lora, lora_state, merged_unet
from training.model.networks import network_spec, require_fit, unet_widths, vae_widths
from training.weights.base import read_base_unet, weight_paths
from training.weights.vae import read_vae

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
    if held.stage in (*VAE_STAGES, "fidelity"):
        what = "export it and use --vae" if held.stage in VAE_STAGES else "name what it was trained for"
        raise ValueError(f"expected --init with a run of stage prior, align or joint, got {held.stage} in {path}, {what}")
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


def load_vae(config: TrainConfig, sources: Sources, device: torch.device | str = "cpu") -> AutoencoderKL:
    """The frozen VAE of a diffusion stage, fp32 on `device`: `sources.vae`, else the base's.

    Raises:
        ValueError: there is none.
    """
    path = sources.vae or sources.base
    if path is None:
        raise ValueError(f"expected --vae or --base with a VAE for stage {config.stage}, got none, name one")
    vae: Any = read_vae(path, network_spec(config.network))  # diffusers' annotation of .to() is wrong
    return vae.to(device)


def check_start(config: TrainConfig, sources: Sources) -> None:
    """Look at what a run would start from without making a network of it.

    Raises:
        ValueError: a file that is missing; an `init` that is none, or of another network.
    """
    for name in ("base", "vae", "text", "init"):
        path = getattr(sources, name)
        if path is not None and not path.exists():
            raise ValueError(f"expected a file or folder for --{name}, got {path}, which does not exist; check the path")
    if sources.init is not None and config.stage not in VAE_STAGES:
        start = read_starting_point(sources.init, config)
        if start.unet is not None:
            require_fit(unet_widths(start.unet), spec_for(config), "UNet", sources.init)
        if config.stage == "fidelity" and start.alignment is None:
            _require_untrained_allowed(config, "--init has none")


def initial_model(config: TrainConfig, sources: Sources) -> tuple[FaithDiffComposite, History]:
    """The composite as this stage starts, on the CPU, and what led to it, oldest first: the stages before as `{"recipe", "steps",
    "seed"}` and the files of weights as `{"file", "sha256"}`.

    Raises:
        ValueError: a source that is missing or does not fit the network.
    """
    start = read_starting_point(sources.init, config) if sources.init else StartingPoint()
    before = list(start.history)
    unet = start.unet
    if unet is None and sources.base is not None:
        unet = read_base_unet(sources.base)
        before += [{"file": path.name, "sha256": file_digest(path)} for path in weight_paths(sources.base, "unet")]
    if unet is not None:
        require_fit(unet_widths(unet), spec_for(config), "UNet", sources.init if start.unet is not None else sources.base)
    elif config.stage != "prior":
        raise ValueError(
            f"expected a UNet to start stage {config.stage} from, got none, name an SDXL checkpoint with --base, or a run or a "
            "FaithDiff file that has one with --init"
        )
    aligned = config.stage != "prior"
    parts = {
        "unet": make_part(config, "unet") if unet is None else _filled(config, "unet", unet),
        "lq_encoder": _lq_encoder(config, start, sources) if aligned else make_part(config, "lq_encoder"),
        "alignment": _alignment(config, start) if aligned else make_part(config, "alignment"),
    }
    model = compose(config, parts)
    if start.lora is not None:
        model.unet.load_state_dict(start.lora, strict=False)
    return model, before


def _filled(config: TrainConfig, part: str, state: State) -> nn.Module:
    """A part made of these weights and nothing else: no random ones are drawn, none of the file's stay mapped.

    Each replaces the one in `state` at once, so that no two UNets need memory.
    """
    with torch.device("meta"):
        module = make_part(config, part)
    check_state(module.state_dict(), state, {"unet": "UNet", "lq_encoder": "LQ encoder", "alignment": "alignment module"}[part])
    dtype = UNET_DTYPES[config.unet_dtype] if part == "unet" else torch.float32
    for name in state:
        state[name] = state[name].to(dtype, copy=True)
    module.load_state_dict(state, assign=True)
    return module


def _lq_encoder(config: TrainConfig, start: StartingPoint, sources: Sources) -> nn.Module:
    if start.lq_encoder is not None and start.lq_features == config.lq_features:
        require_fit(vae_widths(start.lq_encoder), spec_for(config), "LQ encoder", sources.init)
        return _filled(config, "lq_encoder", start.lq_encoder)
    encoder = load_vae(config, sources).encoder.state_dict()
    with torch.device("meta"):
        names = make_part(config, "lq_encoder").state_dict()
    return _filled(config, "lq_encoder", {name: encoder[name] for name in names})


def _alignment(config: TrainConfig, start: StartingPoint) -> nn.Module:
    if start.alignment is not None:
        reason = start.why_not_aligned(config, spec_for(config).alignment.num_layers)
        if reason is None:
            return _filled(config, "alignment", start.alignment_for(config.alignment_mode))
        _require_untrained_allowed(config, reason)
        warn(f"alignment module: starts afresh, because {reason}")
    else:
        _require_untrained_allowed(config, "--init has none")
    module: Any = make_part(config, "alignment")
    zero_alignment(module)
    return module


def _require_untrained_allowed(config: TrainConfig, reason: str) -> None:
    if config.stage == "fidelity":
        raise ValueError(
            f"expected --init with a trained alignment module that fits this run (stage fidelity restores by it), got {reason}, "
            "name a run of stage align or joint or a FaithDiff file, or --set what differs"
        )
