"""An optimiser's state by parameter name, whole, so that it fits any number of processes, with shards or without.

Not by torch.distributed.checkpoint.state_dict (tried): it loads by the optimiser's own load_state_dict, which turns the
fp32 moments of bf16 weights into bf16, where the second one stands still, and makes new group dictionaries, which FusedBackward's
hooks do not see. Its files would need torchao to be read.
"""

from __future__ import annotations

from typing import Any

import torch

from training.optim.optimisers import FusedBackward
from training.optim.sharding import full_tensor, like_parameter

State = dict[str, dict[str, Any]]
"""{parameter name: {"step": ..., "exp_avg": ..., ...}}"""


EIGHT_BIT = ("codes", "scale", "qmap")
"""Tensors that make up one of torchao's 8-bit moments. They are stored one by one, so that a file can be read without torchao."""


def state_by_name(
    optimiser: torch.optim.Optimizer | FusedBackward, parameters: dict[str, torch.nn.Parameter], *, keep: bool
) -> State:
    """The state by name, whole; as in `sharding.full_tensor`. Learning rates and the like are the configuration's."""
    held = _inner(optimiser).state
    return {
        name: {key: _plain(value, keep) for key, value in held[parameter].items()}
        for name, parameter in parameters.items()
        if parameter in held
    }


def load_by_name(
    optimiser: torch.optim.Optimizer | FusedBackward, state: State, parameters: dict[str, torch.nn.Parameter]
) -> None:
    """Put back what `state_by_name` gave.

    Raises:
        ValueError: names that are no parameters of the run.
    """
    if not set(state) <= set(parameters):
        raise ValueError("expected the run's own parameters in the checkpoint, got others, choose another --out")
    inner = _inner(optimiser)
    fused = any(group.get("fused") for group in inner.param_groups)
    for name, values in state.items():
        inner.state[parameters[name]] = {key: _placed(value, parameters[name], fused) for key, value in values.items()}


def _inner(optimiser: torch.optim.Optimizer | FusedBackward) -> torch.optim.Optimizer:
    return optimiser.inner if isinstance(optimiser, FusedBackward) else optimiser


def _plain(value: Any, keep: bool) -> Any:
    if hasattr(value, "codes"):
        return {**{name: getattr(value, name) for name in EIGHT_BIT}, "signed": value.signed, "dtype": value.dtype}
    return full_tensor(value, keep=keep) if isinstance(value, torch.Tensor) else value


def _placed(value: Any, parameter: torch.nn.Parameter, fused: bool) -> Any:
    """A copy of one entry where the optimiser wants it: moments beside their parameter, the step counter there if it is fused."""
    if isinstance(value, dict):
        from training.optim.adamw8bit import OptimState8bit

        codes, scale, qmap = (value[name].to(parameter.device, copy=True) for name in EIGHT_BIT)
        return OptimState8bit(codes, scale, qmap, value["signed"], value["dtype"])
    if not isinstance(value, torch.Tensor):
        return value
    if value.ndim and value.shape == parameter.shape:
        return like_parameter(value, parameter)
    return value.to(parameter.device if fused else value.device, copy=True)
