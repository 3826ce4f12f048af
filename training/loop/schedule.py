"""What an optimiser step is given: its learning rate, and the crops of its batch for each process. Counted by us in optimiser
steps, so process count and accumulation cannot stretch it.
"""

from __future__ import annotations

import math

from training.config.schema import TrainConfig


def lr_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Factor of the learning rate at optimiser step `step` (from 0) of `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def micro_batches(batch_size: int, *, processes: int, process: int, micro_batch_size: int) -> list[range]:
    """The indices in the step's batch that `process` works through, one range a micro-batch (`micro_batch_size` 0 = one)."""
    per_process = batch_size // processes
    start = process * per_process
    size = micro_batch_size or per_process
    return [range(first, min(first + size, start + per_process)) for first in range(start, start + per_process, size)]


def check_batches(config: TrainConfig, processes: int) -> None:
    """Raise ValueError if a batch of the run cannot be shared out evenly; the message names batch sizes that can."""
    for name, batch_size in (("batch_size", config.batch_size), ("late_batch_size", config.late_batch_size)):
        micro = min(config.micro_batch_size or 1, max(batch_size // processes, 1))
        unit = processes * micro
        if batch_size % unit:
            below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
            near = f"{below} or {above}" if below else f"{above}"
            raise ValueError(
                f"expected {name} to be a multiple of {unit} ({processes} processes x {micro} crops at a time), "
                f"got {batch_size}, set it to {near}, or use another number of processes or micro_batch_size"
            )
