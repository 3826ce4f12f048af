"""Random streams that depend on (seed, purpose, step, key) only, so that no draw depends on order, workers or resume."""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, *parts: int | str) -> int:
    """A 63-bit seed from the run's seed and any number of names and counters."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator_for(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, *parts))


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One float in [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """One integer in [low, high], both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator).item())


def choose(generator: torch.Generator, weights: dict[str, float]) -> str:
    """One key of `weights`, drawn in proportion to its weight."""
    point = uniform(generator, 0.0, sum(weights.values()))
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return list(weights)[-1]
