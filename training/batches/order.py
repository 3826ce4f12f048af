"""The seeded order in which a run takes its pictures or cached crops: each once before any comes again."""

from __future__ import annotations

import threading
from itertools import accumulate

import torch

from training.common.seeds import generator_for
from training.config.schema import TrainConfig

HELD_ORDERS = 8


class SeededOrder:
    """Of `count` items, for the samples of a run. Threads may share one."""

    def __init__(self, config: TrainConfig, count: int) -> None:
        self._seed, self._stage, self._count = config.seed, config.stage, count
        self._before = [0, *accumulate(config.crops_at(step)[0] for step in range(config.steps))]
        self._orders: dict[int, torch.Tensor] = {}
        self._lock = threading.Lock()

    def item(self, step: int, index: int) -> int:
        """The item of this index in the batch of optimiser step `step` (both from 0)."""
        epoch, rest = divmod(self._before[step] + index, self._count)
        with self._lock:
            if epoch not in self._orders:
                if len(self._orders) >= HELD_ORDERS:
                    del self._orders[min(self._orders)]
                generator = generator_for(self._seed, self._stage, "order", epoch)
                self._orders[epoch] = torch.randperm(self._count, generator=generator)
            return int(self._orders[epoch][rest])
