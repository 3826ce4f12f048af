"""A ratio of sums over pictures with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CHUNK = 500
"""Resamples drawn at once: bounds the memory to 4 MB for each thousand pictures."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """`value` = sum of the numerators / sum of the denominators, and its percentile interval [low, high]. All three are None
    where the denominators sum to 0: nothing was counted, which is no score of 0."""

    value: float | None
    low: float | None
    high: float | None
    numerator: float
    denominator: float


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int, resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Ratio:  # fmt: skip
    """A ratio of sums and its interval from pictures drawn again with replacement.

    Pictures are drawn, not words: the words of a picture are read well or badly together. Resamples whose denominators sum to
    0 are left out. An interval from one picture is that picture's value. Deterministic by `seed`."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1:
        raise ValueError(
            f"expected one numerator for each denominator, got {above.shape} and {below.shape}, pass lists of equal length"
        )
    sums = float(above.sum()), float(below.sum())
    if sums[1] == 0:
        return Ratio(value=None, low=None, high=None, numerator=sums[0], denominator=sums[1])
    generator = np.random.default_rng(seed)
    ratios: list[np.ndarray] = []
    for start in range(0, resamples, _CHUNK):
        drawn = generator.integers(0, len(above), size=(min(_CHUNK, resamples - start), len(above)))
        resampled_above, resampled_below = above[drawn].sum(axis=1), below[drawn].sum(axis=1)
        ratios.append(resampled_above[resampled_below > 0] / resampled_below[resampled_below > 0])
    edges = np.quantile(np.concatenate(ratios), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ratio(value=sums[0] / sums[1], low=float(edges[0]), high=float(edges[1]), numerator=sums[0], denominator=sums[1])
