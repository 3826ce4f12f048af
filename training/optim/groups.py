"""What of a model trains, in groups that each have a scale of the learning rate."""

from __future__ import annotations

import torch
from torch import nn

Groups = list[tuple[str, float, dict[str, torch.nn.Parameter]]]
"""[(name, scale of the learning rate, {qualified parameter name: parameter})]"""


def trainable(groups: Groups) -> dict[str, torch.nn.Parameter]:
    """All parameters of the groups, by their name in the module."""
    return {name: parameter for _, _, members in groups for name, parameter in members.items()}


def only_train(module: nn.Module, groups: Groups) -> None:
    """Set requires_grad to match the groups exactly, so that nothing frozen costs or keeps a gradient."""
    trained = {id(parameter) for parameter in trainable(groups).values()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in trained)
