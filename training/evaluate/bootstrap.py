"""Means with their uncertainty, by resampling the pictures: percentile bootstrap (Efron 1979), seeded and vectorised.

The interval speaks of other pictures of the same kind. It does not speak of another training run or another seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

DRAWN_AT_ONCE = 4_000_000
"""Indices held at a time: 32 MB, whatever the number of pictures."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean, the ends of its interval, the standard deviation between pictures (n - 1; 0 for one) and the number of pictures.

    With one picture the ends are the mean: that says nothing about other pictures."""

    mean: float
    low: float
    high: float
    stdev: float
    count: int


def mean_interval(values: Sequence[float], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95) -> Interval:
    """The mean of `values` and its percentile interval. The same values in the same order with the same seed give the same.

    Raises ValueError for no value, a value that is not finite, or a `confidence` that is not between 0 and 1."""
    data_N = _checked(values, resamples, confidence)
    means_R = torch.cat([data_N[picks].mean(dim=1) for picks in _picks(len(data_N), resamples, seed)])
    low, high = _ends(means_R, confidence)
    return Interval(mean=data_N.mean().item(), low=low, high=high, stdev=_stdev(data_N), count=len(data_N))


def paired_interval(
    a: Sequence[float], b: Sequence[float], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> Interval:
    """The mean of `a - b`, pair by pair, and its interval. Raises ValueError as mean_interval, and for different lengths."""
    if len(a) != len(b):
        raise ValueError(f"expected pairs, got {len(a)} and {len(b)} values, keep the pictures that both have")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], seed=seed, resamples=resamples, confidence=confidence)


def within_interval(
    table: Mapping[str, Sequence[float]], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Intervals for comparing rows that were measured on the same pictures, in the same order.

    What is common to all rows of a picture is taken out (Cousineau 2005), and the spread is widened by sqrt(J / (J - 1)) for
    J rows (Morey 2008). Means stay those of the rows; `stdev` is that of the corrected values. Raises ValueError as
    mean_interval, for fewer than two rows, and for rows of different lengths."""
    if len(table) < 2 or len({len(values) for values in table.values()}) != 1:
        sizes = {name: len(values) for name, values in table.items()}
        raise ValueError(f"expected two or more rows over the same pictures, got {sizes}, leave out what not all rows have")
    data_JN = torch.stack([_checked(values, resamples, confidence) for values in table.values()])
    centred_JN = data_JN - data_JN.mean(dim=0) + data_JN.mean()
    widen = math.sqrt(len(table) / (len(table) - 1))
    means_JR = torch.cat([centred_JN[:, picks].mean(dim=2) for picks in _picks(data_JN.shape[1], resamples, seed)], dim=1)
    intervals = {}
    for name, centred_N, means_R in zip(table, centred_JN, means_JR, strict=True):
        mean = centred_N.mean()
        low, high = _ends(mean + widen * (means_R - mean), confidence)
        intervals[name] = Interval(mean=mean.item(), low=low, high=high, stdev=widen * _stdev(centred_N), count=len(centred_N))
    return intervals


def _checked(values: Sequence[float], resamples: int, confidence: float) -> torch.Tensor:
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"expected at least one value, all finite, got {len(values)} values, leave out what is not finite")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"expected a confidence between 0 and 1 and 1 or more resamples, got {confidence} and {resamples}, take 0.95, 10000"
        )
    return torch.tensor(values, dtype=torch.float64)


def _picks(count: int, resamples: int, seed: int) -> Iterator[torch.Tensor]:
    """(r, count) indices drawn with replacement, in parts that together have `resamples` rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, DRAWN_AT_ONCE // count)
    for start in range(0, resamples, rows):
        yield torch.randint(count, (min(rows, resamples - start), count), generator=generator)


def _ends(means_R: torch.Tensor, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = torch.quantile(means_R, torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return low, high


def _stdev(data_N: torch.Tensor) -> float:
    return data_N.std().item() if len(data_N) > 1 else 0.0
