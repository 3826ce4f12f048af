"""What of a model trains, in groups that each have a share of the learning rate."""

from __future__ import annotations

import torch
from torch import nn

from training.config.schema import TrainConfig
from training.model.lora import has_lora, lora_parameters

Groups = list[tuple[str, float, dict[str, torch.nn.Parameter]]]
"""[(name, share of the learning rate, {qualified parameter name: parameter})]"""


def trained_groups(model: nn.Module, config: TrainConfig) -> Groups:
    """One group per part of `config.parts`: a submodule of that name; with LoRA, of the UNet its LoRA parameters alone."""
    shares = {"lq_encoder": config.encoder_lr_ratio, "unet": config.unet_lr_ratio}
    groups: Groups = []
    for part in config.parts:
        candidates = lora_parameters(model) if part == "unet" and has_lora(config) else dict(model.named_parameters())
        members = {name: parameter for name, parameter in candidates.items() if name.startswith(part + ".")}
        assert members, f"no parameters in {part}"
        groups.append((part, shares.get(part, 1.0), members))
    return groups


def trainable(groups: Groups) -> dict[str, torch.nn.Parameter]:
    """All parameters of the groups, by their name in the module."""
    return {name: parameter for _, _, members in groups for name, parameter in members.items()}


def only_train(module: nn.Module, groups: Groups) -> None:
    """Set requires_grad to match the groups exactly, so that nothing frozen costs or keeps a gradient."""
    trained = {id(parameter) for parameter in trainable(groups).values()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in trained)
