"""Learning rate over optimiser steps: linear warm-up, then cosine to 0. Counted by us, so process count and accumulation cannot
stretch it.
"""

from __future__ import annotations

import math


def lr_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Factor of the learning rate at optimiser step `step` (from 0) of `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
