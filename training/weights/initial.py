"""What a run starts from: which part comes from which file.

* UNet: `init` (a run, or a FaithDiff file with a UNet), else `base`; a prior may start from nothing.
* LQ encoder: `init` where it has one, else the VAE's encoder (official train_SDXL_stage_1.py:622-628).
* Alignment module: `init` where it has a fitting one, else seeded weights whose output is zero.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from faithdiff_core.files.checks import check_state
from training.common.devices import warn
from training.common.weight_files import State, file_digest
from training.config.schema import VAE_STAGES, TrainConfig
from training.config.sources import Sources
from training.model.faithdiff import UNET_DTYPES, FaithDiffComposite, compose, make_part, spec_for, zero_alignment
from training.model.networks import network_spec
from training.model.shapes import require, unet_widths, vae_widths
from training.weights.base import read_base_unet, weight_paths
from training.weights.starting_point import History, StartingPoint, read_starting_point
from training.weights.vae import read_vae


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
            require(unet_widths(start.unet), spec_for(config), "UNet", sources.init)


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
        require(unet_widths(unet), spec_for(config), "UNet", sources.init if start.unet is not None else sources.base)
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
        require(vae_widths(start.lq_encoder), spec_for(config), "LQ encoder", sources.init)
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
        warn(f"alignment module: starts afresh, because {reason}")
    module: Any = make_part(config, "alignment")
    zero_alignment(module)
    return module
