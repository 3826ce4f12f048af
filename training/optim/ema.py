"""Exponential moving average of what trains: every optimiser step, in fp32, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.optim.sharding import as_shard, full_tensor, like_parameter, local

Parameters = dict[str, torch.nn.Parameter]


class EMA:
    """Shadow copies of named parameters; of sharded ones, of this process's shard.

    `max_decay` 0 = no average at all: the shadow is empty. `on_cpu` keeps it in main memory.
    """

    def __init__(self, parameters: Parameters, *, max_decay: float, on_cpu: bool = False) -> None:
        self.max_decay = max_decay
        self.shadow: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items() if max_decay else ():
            held = local(parameter.detach())
            self.shadow[name] = held.to("cpu" if on_cpu else held.device, torch.float32, copy=True)

    def decay(self, step: int) -> float:
        """Decay of optimiser step `step` (from 0): (1 + s) / (10 + s), capped."""
        return min(self.max_decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, parameters: Parameters, step: int) -> None:
        """Move the shadow towards the parameters after optimiser step `step`."""
        for name, shadow in self.shadow.items():
            shadow.lerp_(local(parameters[name]).to(shadow.device, torch.float32), 1.0 - self.decay(step))

    def state(self, parameters: Parameters, *, keep: bool) -> dict[str, torch.Tensor]:
        """The averages by name, whole; as in `sharding.full_tensor`."""
        return {name: full_tensor(as_shard(shadow, parameters[name]), keep=keep) for name, shadow in self.shadow.items()}

    def load(self, state: dict[str, torch.Tensor], parameters: Parameters) -> None:
        """Put back what `state` gave.

        Raises:
            ValueError: other names than the parameters'.
        """
        if set(state) != set(self.shadow):
            raise ValueError("expected the run's own parameters in the checkpoint, got others, choose another --out")
        for name, shadow in self.shadow.items():
            shadow.copy_(local(like_parameter(state[name], parameters[name])))

    @contextmanager
    @torch.no_grad()
    def in_place(self, parameters: Parameters) -> Iterator[None]:
        """The averages stand in the parameters' place inside the context; afterwards the parameters are what they were, bit for
        bit. Their copies wait in main memory.
        """
        kept = {name: local(parameters[name]).to("cpu", copy=True) for name in self.shadow}
        try:
            for name, shadow in self.shadow.items():
                local(parameters[name]).copy_(shadow)
            yield
        finally:
            for name, value in kept.items():
                local(parameters[name]).copy_(value)
