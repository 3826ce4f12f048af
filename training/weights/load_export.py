"""Reading an export back into the trainer's own network, to compare its numbers with any other implementation's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from faithdiff_core import architecture
from faithdiff_core.alignment import AlignmentModule
from faithdiff_core.files.checkpoint import FaithDiffParts, alignment_state_for
from faithdiff_core.files.checks import check_state
from faithdiff_core.files.keymap import ldm_to_diffusers
from faithdiff_core.files.storage import write_safetensors
from faithdiff_core.lq_encoder import LQEncoder
from training.common.results import require_own
from training.common.seeds import generator_for
from training.common.tensor_files import State, read_parts
from training.model.faithdiff import FaithDiffComposite
from training.model.networks import NETWORKS, NetworkSpec, build_unet, fits, time_ids, unet_widths
from training.weights.check import is_own


def spec_of(parts: FaithDiffParts) -> NetworkSpec:
    """The named network that a full file's sizes belong to.

    Raises:
        ValueError: it is none of ours, or has no UNet.
    """
    if parts.unet is None:
        raise ValueError("expected a full FaithDiff file, got an adapter without UNet, export with --layout full")
    config = parts.metadata.config
    encoder = architecture.lq_encoder_sizes(parts.lq_encoder, config)
    alignment = architecture.alignment_sizes(parts.alignment, config)
    widths = unet_widths(_diffusers_names(parts.unet))
    for spec in NETWORKS.values():
        spec = replace(spec, alignment=replace(spec.alignment, num_layers=alignment.num_layers))
        if spec.encoder == encoder and spec.alignment == alignment and fits(widths, spec):
            return spec
    found = f"{encoder}, {alignment}, {widths}"
    raise ValueError(f"expected the widths of {' or '.join(NETWORKS)}, got {found}, use the nodes for this file")


def load_exported(path: Path) -> FaithDiffComposite:
    """A full FaithDiff file as the trainer's composite, fp32, in eval mode.

    Raises:
        ValueError: it is none.
    """
    parts = read_parts(path)
    spec, mode = spec_of(parts), parts.metadata.align_attention
    assert parts.unet is not None
    with torch.device("meta"):
        model = FaithDiffComposite(
            spec,
            lq_encoder=LQEncoder(spec.encoder, operations=nn),
            alignment=AlignmentModule(spec.alignment, mode=mode, operations=nn),
            unet=build_unet(spec),
        )
    _fill(model.unet, _diffusers_names(parts.unet), "UNet")
    _fill(model.lq_encoder, parts.lq_encoder, "LQ encoder")
    _fill(model.alignment, alignment_state_for(parts.alignment, mode, folded=False), "alignment module")
    return model.eval().requires_grad_(False)


def _diffusers_names(unet: State) -> State:
    names = ldm_to_diffusers(unet)
    return {names.get(name, name): value for name, value in unet.items()}


def _fill(module: nn.Module, state: State, what: str) -> None:
    check_state(module.state_dict(), state, what)
    module.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def write_reference(path: Path, out: Path, *, height_px: int, width_px: int, seed: int) -> None:
    """Write made-up inputs and the trainer's own numbers for them, so that another process can compare its own.

    Tensors of the .safetensors file (two rows): lq (2, 3, H, W) in [-1, 1]; features; noisy (2, 4, H/8, W/8); timestep (999, 21);
    time_ids (2, 6); noise = the prediction with alignment; noise_unaligned = without it. Prompt-free.

    Raises:
        ValueError: sizes that are no multiple of 32 px.
    """
    if height_px % 32 or width_px % 32 or min(height_px, width_px) < 32:
        raise ValueError(f"expected a size in multiples of 32 px, got {width_px}x{height_px}, choose for example 256x224")
    require_own(out, "reference", is_own, [path])
    model = load_exported(path)
    target_px = read_parts(path).metadata.target_size_px
    generator = generator_for(seed, "reference")
    lq = torch.rand(2, 3, height_px, width_px, generator=generator) * 2 - 1
    noisy = torch.randn(2, 4, height_px // 8, width_px // 8, generator=generator)
    timestep = torch.tensor([999, 21])
    ids = time_ids((height_px, width_px), (0, 0), target_px).expand(2, 6)
    with torch.no_grad():
        features = model.encode_lq(lq)
        tensors = {
            "lq": lq,
            "features": features,
            "noisy": noisy,
            "timestep": timestep,
            "time_ids": ids,
            "noise": model.predict(noisy, timestep, ids, features),
            "noise_unaligned": model.predict(noisy, timestep, ids, None),
        }
    write_safetensors(out, tensors, {"faithdiff.reference": path.name})
