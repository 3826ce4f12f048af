"""What the loop asks of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from training.optim.optimisers import Groups

Batch = dict[str, torch.Tensor]
Metrics = dict[str, float | torch.Tensor]


class Task(Protocol):
    """A stage: its module, what of it trains, its batches and its loss.

    A sample's index is its place in the whole batch of an optimiser step, over all processes. A sample must depend on the
    configuration, the step and its index alone.
    """

    @property
    def module(self) -> torch.nn.Module:
        """What is wrapped for several processes, and saved. May name classes to shard one by one in `_no_split_modules`."""
        ...

    def groups(self) -> Groups:
        """[(name, scale of the learning rate, {name in the module: parameter})] of what trains. Asked again after wrapping."""
        ...

    def batch(self, step: int, indices: range) -> Batch:
        """These samples of the step's batch, on the task's device."""
        ...

    def prefetch(self, step: int, indices: range) -> None:
        """A hint that this will be asked for next."""
        ...

    def loss(self, module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """Mean loss over the batch given, and metrics to log. `module` is the wrapped one: only its forward may be called."""
        ...

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Metrics of the weights as they stand (the EMA's), {} = nothing to validate. Pictures go to folder/step-<8 digits>*.png.

        Called in the main process alone; with sharded parameters in all of them, and what others write is thrown away.
        """
        ...
