"""Exponential moving average of what trains: every optimiser step, in fp32, by name."""

from __future__ import annotations

import torch


class EMA:
    """Shadow copies of named parameters."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], *, max_decay: float) -> None:
        self.max_decay = max_decay
        self.shadow = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}

    def decay(self, step: int) -> float:
        """Decay of optimiser step `step` (from 0): (1 + s) / (10 + s), capped."""
        return min(self.max_decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, parameters: dict[str, torch.nn.Parameter], step: int) -> None:
        """Move the shadow towards the parameters after optimiser step `step`."""
        names = list(self.shadow)
        current = [parameters[name].detach().float() for name in names]
        torch._foreach_lerp_([self.shadow[name] for name in names], current, 1.0 - self.decay(step))
