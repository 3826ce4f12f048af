"""Intervals on distributions whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from training.reports.bootstrap import mean_interval, paired_interval, within_interval


@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_95_per_cent_of_the_intervals_hold_the_truth(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (600, 150)
    draws = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "exponential":
        draws = -torch.log1p(-torch.rand(shape, generator=generator, dtype=torch.float64)) - 1.0  # mean 0 as well
    intervals = [mean_interval(values, seed=number, resamples=1000) for number, values in enumerate(draws.tolist())]
    hits = sum(interval.low <= 0 <= interval.high for interval in intervals)
    assert 0.92 <= hits / len(intervals) <= 0.97


def test_it_is_the_percentile_bootstrap_of_scipy() -> None:
    values = torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64).square().tolist()
    ours = mean_interval(values)
    theirs = stats.bootstrap((values,), lambda x, axis: x.mean(axis), method="percentile", n_resamples=10_000, rng=3)
    # The quantile's own standard error is about 0.03 of the mean's (10,000 resamples); 0.15 is five of them.
    allowed = 0.15 * ours.stdev / math.sqrt(len(values))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=allowed)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=allowed)
    assert (ours.mean, ours.stdev, ours.count) == (
        pytest.approx(stats.tmean(values)),
        pytest.approx(stats.tstd(values)),
        40,
    )


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    values = [0.1, 0.7, 0.3, 0.9, 0.2]
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, resamples=500) != mean_interval(values, resamples=500, seed=1)


def test_pairs_take_out_what_both_have() -> None:
    generator = torch.Generator().manual_seed(4)
    picture = torch.randn(60, generator=generator, dtype=torch.float64) * 10
    a, b = picture + 0.5 + torch.randn(60, generator=generator) * 0.1, picture
    paired = paired_interval(a.tolist(), b.tolist())
    assert 0.4 < paired.low < paired.mean < paired.high < 0.6
    alone_a, alone_b = mean_interval(a.tolist()), mean_interval(b.tolist())
    assert alone_a.low < alone_b.high, "unpaired they cannot be told apart"
    with pytest.raises(ValueError, match="expected pairs, got 2 and 1"):
        paired_interval([1.0, 2.0], [1.0])


def test_within_intervals_are_of_the_rows_and_not_of_the_pictures() -> None:
    generator = torch.Generator().manual_seed(5)
    count, noise = 400, 0.2
    picture = torch.randn(count, generator=generator, dtype=torch.float64) * 10
    table = {
        name: (picture + offset + noise * torch.randn(count, generator=generator)).tolist()
        for name, offset in (("a", 0.0), ("b", 1.0), ("c", 2.0))
    }
    intervals = within_interval(table)
    for name, interval in intervals.items():
        assert interval.mean == pytest.approx(sum(table[name]) / count)
        # Morey's factor makes the spread that of the noise alone; without it it were sqrt(2 / 3) of that.
        assert interval.stdev == pytest.approx(noise, rel=0.07)
        assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * noise / math.sqrt(count), rel=0.1)
    assert intervals["a"].high < intervals["b"].low < intervals["b"].high < intervals["c"].low
    shifted = within_interval({"a": picture.tolist(), "b": (picture + 1).tolist()})
    assert shifted["a"].high - shifted["a"].low == pytest.approx(0, abs=1e-12)


def test_one_value_has_no_spread_and_bad_input_one_line() -> None:
    one = mean_interval([3.0])
    assert (one.mean, one.low, one.high, one.stdev, one.count) == (3.0, 3.0, 3.0, 0.0, 1)
    for values in ([], [1.0, math.inf], [math.nan]):
        with pytest.raises(ValueError, match="expected at least one value, all finite"):
            mean_interval(values)
    with pytest.raises(ValueError, match="expected a confidence between 0 and 1"):
        mean_interval([1.0], confidence=95)
    with pytest.raises(ValueError, match="expected two or more rows over the same pictures"):
        within_interval({"a": [1.0, 2.0]})
    with pytest.raises(ValueError, match="expected two or more rows over the same pictures"):
        within_interval({"a": [1.0, 2.0], "b": [1.0]})
