"""What of a model trains, in groups, and optimisers over them. Each group remembers its name and its scale of the learning rate;
the loop sets "lr".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.config.schema import TrainConfig

Groups = list[tuple[str, float, dict[str, torch.nn.Parameter]]]
"""[(name, scale of the learning rate, {qualified parameter name: parameter})]"""
BETA1 = 0.9
"""Official train_SDXL_stage_2.py:478."""
EPS = 1e-8
"""Official train_SDXL_stage_2.py:482."""


def trainable(groups: Groups) -> dict[str, torch.nn.Parameter]:
    """All parameters of the groups, by their name in the module."""
    return {name: parameter for _, _, members in groups for name, parameter in members.items()}


def only_train(module: nn.Module, groups: Groups) -> None:
    """Set requires_grad to match the groups exactly, so that nothing frozen costs or keeps a gradient."""
    trained = {id(parameter) for parameter in trainable(groups).values()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def make_optimiser(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that `config.optimiser` names; its param_groups have "name" and "lr_scale" besides AdamW's own keys.

    Raises:
        ValueError: weights held in bf16 under plain AdamW, and where torchao is missing for "adamw8bit".
    """
    listed = [{"params": list(members.values()), "lr_scale": lr_scale, "name": name} for name, lr_scale, members in groups]
    options: dict[str, Any] = {
        "lr": config.lr,
        "betas": (BETA1, config.adam_beta2),
        "eps": EPS,
        "weight_decay": config.weight_decay,
    }
    if config.optimiser == "adamw8bit":
        try:
            from training.optim.adamw8bit import AdamW8bit
        except ImportError:
            raise ValueError("expected torchao for optimiser=adamw8bit, got no such package, do: pip install torchao") from None
        return AdamW8bit(listed, **options, seed=config.seed)
    if any(parameter.dtype != torch.float32 for parameter in trainable(groups).values()):
        raise ValueError(
            "expected fp32 weights for optimiser=adamw (it rounds small updates of bf16 weights away), got bf16, "
            "do --set optimiser=adamw8bit or --set unet_dtype=fp32"
        )
    # fused: a third of the loop's time on a CPU, and no temporaries the size of the weights on a GPU.
    return torch.optim.AdamW(listed, **options, fused=True)


def allocate_states(optimiser: torch.optim.Optimizer) -> None:
    """Give every parameter the state that its first step would, zeros."""
    for parameter in [p for group in optimiser.param_groups for p in group["params"]]:
        if not optimiser.state[parameter]:
            make = getattr(optimiser, "_new_buffer", lambda p, _signed: torch.zeros_like(p, memory_format=torch.preserve_format))
            moments = {"exp_avg": make(parameter, True), "exp_avg_sq": make(parameter, False)}
            optimiser.state[parameter] = {"step": torch.zeros(()), **moments}


class FusedBackward:
    """Steps each parameter inside the backward pass, as soon as its gradient is there, and frees that gradient.

    It has the surface that the loop uses of an optimiser. Learning rates must be set before the backward pass. Clipping cannot
    wait for the norm of all gradients: each parameter is held to its own share, clip_norm * sqrt(its values / all values), so
    that the whole still never exceeds clip_norm. A stronger clip than the usual one, which Adam, blind to a gradient's scale,
    mostly does not feel.

    Raises:
        ValueError: under several processes: gradients would be used before they are averaged.
    """

    def __init__(self, groups: Groups, config: TrainConfig) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            count = torch.distributed.get_world_size()
            raise ValueError(f"expected one process for fused_backward, got {count}, do --set fused_backward=false")
        self.inner = make_optimiser(groups, config)
        self.parameters = trainable(groups)
        self.clip_norm = config.clip_norm
        self.total_values = sum(parameter.numel() for parameter in self.parameters.values())
        self._squares: dict[torch.device, torch.Tensor] = {}
        for group in self.inner.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(lambda p, group=group: self._update(p, group))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    @torch.no_grad()
    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        norm = parameter.grad.float().norm()
        self._squares[norm.device] = self._squares.get(norm.device, torch.zeros_like(norm)) + norm.square()
        if self.clip_norm > 0:
            limit = self.clip_norm * (parameter.numel() / self.total_values) ** 0.5
            parameter.grad.mul_((limit / (norm + 1e-6)).clamp(max=1.0))  # 1e-6 as in torch's clip_grad_norm_
        # The optimiser walks over its groups: with all of them, time would grow with the square of the number of parameters.
        whole = self.inner.param_groups
        self.inner.param_groups = [{**group, "params": [parameter]}]
        try:
            self.inner.step()
        finally:
            self.inner.param_groups = whole
        parameter.grad = None

    def norm(self) -> torch.Tensor:
        """Norm () of all gradients since the last `zero_grad`, before clipping."""
        return torch.stack([square.cpu() for square in self._squares.values()]).sum().sqrt()

    def step(self) -> None:
        """Nothing is left to do."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Only forgets the norm: gradients are gone already."""
        self._squares.clear()
