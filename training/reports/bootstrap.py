"""Means and ratios with their uncertainty, by resampling the pictures: percentile bootstrap (Efron 1979), seeded and vectorised.

The interval speaks of other pictures of the same kind. It does not speak of another training run or another seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

RESAMPLES, CONFIDENCE = 10_000, 0.95
DRAWN_AT_ONCE = 4_000_000
"""Indices held at a time: 32 MB, whatever the number of pictures."""

Draw = Callable[[int, int], torch.Tensor]
"""(rows, count) -> that many indices below `count`, drawn with replacement, int64."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean, the ends of its interval, the standard deviation between pictures (n - 1; 0 for one) and the number of pictures.

    With one picture the ends are the mean: that says nothing about other pictures.
    """

    mean: float
    low: float
    high: float
    stdev: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """`value` = sum of the numerators / sum of the denominators, and its percentile interval [low, high]. All three are None
    where the denominators sum to 0: nothing was counted, which is no score of 0.
    """

    value: float | None
    low: float | None
    high: float | None
    numerator: float
    denominator: float


def mean_interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of `values` and its percentile interval. The same values in the same order with the same seed give the same.

    Raises:
        ValueError: no value, a value that is not finite, or a `confidence` that is not between 0 and 1.
    """
    values_N = _checked(values, resamples, confidence)
    ((low, high),) = _ends(_resampled(values_N[None], torch.ones_like(values_N), resamples, _of_torch(seed)), confidence)
    return Interval(mean=values_N.mean().item(), low=low, high=high, stdev=_stdev(values_N), count=len(values_N))


def paired_interval(
    a: Sequence[float], b: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of `a - b`, pair by pair, and its interval.

    Raises:
        ValueError: as mean_interval; different lengths.
    """
    if len(a) != len(b):
        raise ValueError(f"expected pairs, got {len(a)} and {len(b)} values, keep the pictures that both have")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], seed=seed, resamples=resamples, confidence=confidence)


def within_interval(
    table: Mapping[str, Sequence[float]], *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> dict[str, Interval]:
    """Intervals for comparing rows that were measured on the same pictures, in the same order.

    What is common to all rows of a picture is taken out (Cousineau 2005), and the spread is widened by sqrt(J / (J - 1)) for
    J rows (Morey 2008). Means stay those of the rows; `stdev` is that of the corrected values.

    Raises:
        ValueError: as mean_interval; fewer than two rows; rows of different lengths.
    """
    if len(table) < 2 or len({len(values) for values in table.values()}) != 1:
        sizes = {name: len(values) for name, values in table.items()}
        raise ValueError(f"expected two or more rows over the same pictures, got {sizes}, leave out what not all rows have")
    values_JN = torch.stack([_checked(values, resamples, confidence) for values in table.values()])
    centred_JN = values_JN - values_JN.mean(dim=0) + values_JN.mean()
    means_J = centred_JN.mean(dim=1)
    widen = math.sqrt(len(table) / (len(table) - 1))
    means_JR = _resampled(centred_JN, torch.ones_like(centred_JN[0]), resamples, _of_torch(seed))
    ends = _ends(means_J[:, None] + widen * (means_JR - means_J[:, None]), confidence)
    return {
        name: Interval(mean=mean, low=low, high=high, stdev=widen * _stdev(centred_N), count=len(centred_N))
        for name, mean, (low, high), centred_N in zip(table, means_J.tolist(), ends, centred_JN, strict=True)
    }


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Ratio:
    """A ratio of sums and its percentile interval.

    Pictures are drawn, not words: the words of a picture are read well or badly together. Resamples whose denominators sum to
    0 are left out. An interval from one picture is that picture's value.

    Raises:
        ValueError: as mean_interval; different lengths.
    """
    if len(numerators) != len(denominators):
        got = f"{len(numerators)} and {len(denominators)}"
        raise ValueError(f"expected one numerator for each denominator, got {got}, pass lists of equal length")
    above_N, below_N = (_checked(values, resamples, confidence) for values in (numerators, denominators))
    above, below = above_N.sum().item(), below_N.sum().item()
    if below == 0:
        return Ratio(value=None, low=None, high=None, numerator=above, denominator=below)
    ((low, high),) = _ends(_resampled(above_N[None], below_N, resamples, _of_numpy(seed)), confidence)
    return Ratio(value=above / below, low=low, high=high, numerator=above, denominator=below)


def _checked(values: Sequence[float], resamples: int, confidence: float) -> torch.Tensor:
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"expected at least one value, all finite, got {len(values)} values, leave out what is not finite")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"expected a confidence between 0 and 1 and 1 or more resamples, got {confidence} and {resamples}, take 0.95, 10000"
        )
    return torch.tensor(values, dtype=torch.float64)


def _of_torch(seed: int) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    return lambda rows, count: torch.randint(count, (rows, count), generator=generator)


def _of_numpy(seed: int) -> Draw:
    """Ratios were drawn by numpy from the first report of text on: the same pictures have to give the same interval again."""
    generator = np.random.default_rng(seed)
    return lambda rows, count: torch.from_numpy(generator.integers(0, count, size=(rows, count)))


def _resampled(above_JN: torch.Tensor, below_N: torch.Tensor, resamples: int, draw: Draw) -> torch.Tensor:
    """J ratios of sums over the same pictures drawn with replacement, (J, R); denominators of 1 make them means. Draws whose
    denominators sum to 0 are left out, so R may be below `resamples`.
    """
    parts: list[torch.Tensor] = []
    rows = max(1, DRAWN_AT_ONCE // len(below_N))
    for start in range(0, resamples, rows):
        picks_RN = draw(min(rows, resamples - start), len(below_N))
        below_R = below_N[picks_RN].sum(dim=1)
        has_any_R = below_R > 0
        parts.append(above_JN[:, picks_RN].sum(dim=2)[:, has_any_R] / below_R[has_any_R])
    return torch.cat(parts, dim=1)


def _ends(ratios_JR: torch.Tensor, confidence: float) -> list[tuple[float, float]]:
    tail = (1.0 - confidence) / 2.0
    low_J, high_J = torch.quantile(ratios_JR, torch.tensor([tail, 1.0 - tail], dtype=torch.float64), dim=1)
    return list(zip(low_J.tolist(), high_J.tolist(), strict=True))


def _stdev(values_N: torch.Tensor) -> float:
    return values_N.std().item() if len(values_N) > 1 else 0.0
