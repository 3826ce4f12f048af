"""A FaithDiff step against native SUPIR's in the host: the same UNet; SUPIR's control encoder and adapters with made-up
weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import made_up
import torch
from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX
from rows import Options, Row, Skipped, compared
from step_time import timed
from support import tiny


def supir(options: Options) -> Sequence[Row]:
    """FaithDiff's step over SUPIR's, and SUPIR's over the bare UNet's.

    Raises:
        Skipped: a host without SUPIR; Vega, whose middle SUPIR's encoder cannot have.
    """
    try:
        import comfy.ldm.supir.supir_modules as modules
        from comfy.ldm.supir.supir_patch import SUPIRPatch
    except ImportError:
        raise Skipped("this ComfyUI has no SUPIR; a newer one has") from None
    if options.size == "vega":
        raise Skipped("SUPIR's encoder has attention in its middle, Vega's UNet has none; take --size nano or sdxl")
    made = made_up.made_up(options.size)
    px = options.px or made.widths.px
    network = patcher(control(modules, made))
    hint = torch.randn(1, 4, px // LATENT_CELL_PX, px // LATENT_CELL_PX, generator=torch.Generator().manual_seed(6))
    patched = made.model.clone()
    SUPIRPatch(network, network.model.project_modules, hint, 1.0, 1.0).register(patched)
    aligned = made_up.aligned(made, made_up.features_of(made, px, px))
    models = {"bare UNet": made.model, "SUPIR": patched, "FaithDiff": aligned}
    seconds = timed(made, models, options, height_px=px, width_px=px)
    extra = sum(p.numel() for p in network.model.parameters()) / sum(p.numel() for p in made.model.model.parameters())
    notes = f"{px} px, {options.device}; SUPIR's own weights are {extra:.0%} of the UNet's"
    pairs = (("FaithDiff", "SUPIR"), ("SUPIR", "bare UNet"), ("FaithDiff", "bare UNet"))
    return [compared(f"supir, {options.size}", seconds, a, b, notes=notes) for a, b in pairs]


def patcher(network: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """As the host's own loader makes it (H comfy_extras/nodes_model_patch.py, ModelPatchLoader)."""
    devices = {"load_device": mm.get_torch_device(), "offload_device": mm.unet_offload_device()}
    return comfy.model_patcher.CoreModelPatcher(network, **devices)


def control(modules: Any, made: made_up.MadeUp) -> torch.nn.Module:
    """SUPIR's two parts. Its encoder is a copy of the UNet's in size; here it is the UNet's own tensors, the rest is random."""
    unet = made.model.model.diffusion_model
    factory = {"dtype": torch.float32, "device": "meta", "operations": comfy.ops.manual_cast}
    if made.widths.unet["model_channels"] == 320:
        network = modules.SUPIR(**factory)
    else:
        network = torch.nn.Module()
        network.control_model = modules.GLVControl(**encoder_sizes(made.widths.unet), **factory)
        network.project_modules = adapters(modules, unet, factory)
    theirs = unet.state_dict()
    state = network.state_dict()
    prefix = "control_model."
    own = {k: v for k, v in state.items() if not k.startswith(prefix) or k.removeprefix(prefix) not in theirs}
    shared = {k: theirs[k.removeprefix(prefix)] for k in state if k not in own}
    filled = {k: v.to(next(iter(theirs.values()))) for k, v in tiny.random_weights(own, 7).items()}
    network.load_state_dict({**shared, **filled}, assign=True)
    return network.eval()


def encoder_sizes(config: dict[str, Any]) -> dict[str, Any]:
    """The UNet's sizes as SUPIR's encoder takes them, one number a level."""
    per_level = config["num_res_blocks"][0]
    return {
        **{k: config[k] for k in ("model_channels", "channel_mult", "context_dim", "adm_in_channels")},
        "num_res_blocks": per_level,
        "transformer_depth": config["transformer_depth"][::per_level],
    }


def adapters(modules: Any, unet: Any, factory: dict[str, Any]) -> torch.nn.ModuleList:
    """SUPIR's adapters for a UNet of other widths than SDXL's, in the order of the class itself (H
    comfy/ldm/supir/supir_modules.py, SUPIR): one for each skip from the input's side, one for the middle, and one before each
    Upsample."""
    middle = unet.middle_block[0].out_channels
    found = [modules.ZeroSFT(middle, middle, **factory)]
    skips = [channels(block) for block in unet.input_blocks]
    h = middle
    for block, skip in zip(unet.output_blocks, reversed(skips), strict=True):
        found.append(modules.ZeroSFT(skip, skip, concat_channels=h, **factory))
        h = block[0].out_channels
        if type(block[-1]).__name__ == "Upsample":
            found.append(modules.ZeroCrossAttn(skip, h, **factory))
    return torch.nn.ModuleList(reversed(found))


def channels(block: Any) -> int:
    """Channels that an input block puts out."""
    first = block[0]
    return first.out_channels if hasattr(first, "out_channels") else first.channels
