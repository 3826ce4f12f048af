"""LoRA layers in the UNet (by peft), and what becomes of them: merged into the UNet, or a file for the host's Load LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model

from faithdiff_core.files.keymap import diffusers_to_ldm
from training.config.schema import TrainConfig

State = dict[str, torch.Tensor]

_ATTENTION = r".*\.attn[12]\.to_(q|k|v|out\.0)"
_LINEAR = rf"{_ATTENTION}|.*\.ff\.net\.(0\.proj|2)|.*\.proj_(in|out)"
_TARGETS = rf"{_LINEAR}|(.*\.)?conv(1|2|_shortcut|_in|_out)?"
"""Which layers of diffusers' UNet, by their whole names: linear ones and convolutions, but for those that embed the timestep, the
sizes and the pooled prompt."""

ADAPTER = "default"
"""peft's name for the only adapter."""
_BASE, _DOWN, _UP = ".base_layer.", f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"
HOST_PREFIX = "lora_unet_"
"""Of a LoRA's names in the host (comfy/lora.py, model_lora_keys_unet): the LDM name with _ for every dot."""


def has_lora(config: TrainConfig) -> bool:
    """Whether this run trains LoRA layers in the UNet's place."""
    return config.lora_rank > 0 and "unet" in config.parts


def add_lora(unet: UNet2DConditionModel, config: TrainConfig) -> None:
    """Put LoRA layers into `unet`, in place: fp32, the first factor random, the second zero, so that nothing changes yet.

    The UNet's own weights keep their type and are frozen. Afterwards a layer's weight is called `<layer>.base_layer.weight`, its
    factors `<layer>.lora_A.default.weight` and `<layer>.lora_B.default.weight`.
    """
    # alpha = rank, that is scale 1; another scale would act as another learning rate, which unet_lr_ratio sets.
    settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_rank, target_modules=_TARGETS)
    inject_adapter_in_model(settings, unet, adapter_name=ADAPTER)
    for parameter in lora_parameters(unet).values():
        parameter.data = parameter.data.float()  # peft gives them the type of the layer they stand beside


def lora_parameters(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The LoRA factors among a module's parameters, by name."""
    return {name: value for name, value in unet.named_parameters() if name.endswith((_DOWN, _UP))}


def base_unet(unet: Mapping[str, torch.Tensor]) -> State:
    """A UNet's state dict without its LoRA, in diffusers' own names."""
    return {name.replace(_BASE, "."): value for name, value in unet.items() if not name.endswith((_DOWN, _UP))}


def lora_state(unet: Mapping[str, torch.Tensor]) -> State:
    """The LoRA factors in a UNet's state dict, in peft's names."""
    return {name: value for name, value in unet.items() if name.endswith((_DOWN, _UP))}


def merged_unet(unet: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) of a UNet's state dict with its LoRA folded in, in diffusers' own names; what has LoRA becomes fp32.

    One at a time, so that a caller who narrows them never holds two UNets in fp32. Without LoRA they come as they are.
    """
    for name, value in base_unet(unet).items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight" and layer + _DOWN in unet:
            down, up = unet[layer + _DOWN].float(), unet[layer + _UP].float()
            value = value.float() + (up.flatten(1) @ down.flatten(1)).reshape(value.shape)
        yield name, value


def host_lora(unet: Mapping[str, torch.Tensor]) -> State:
    """The LoRA factors of a UNet's state dict in the names of the host's Load LoRA, with their alpha."""
    names = diffusers_to_ldm(base_unet(unet))
    state = {}
    for name in unet:
        if not name.endswith(_DOWN):
            continue
        layer = name.removesuffix(_DOWN)
        target = HOST_PREFIX + names[f"{layer}.weight"].removesuffix(".weight").replace(".", "_")
        state[f"{target}.lora_down.weight"] = unet[layer + _DOWN]
        state[f"{target}.lora_up.weight"] = unet[layer + _UP]
        state[f"{target}.alpha"] = torch.tensor(float(len(unet[name])))
    return state
