"""How far two results are apart, relative to the range of what they should be, and how far rounding alone may put them apart.

Every processor adds in another order (width of its vectors, count of threads, the library's kernels), so two ways to one fp32
result agree within some roundings of the *largest* value that was added up, never within a fixed number: latents of the tiny
networks reach 12 to 95. A bound in a test is one of the names below, times the range. Bit for bit is what the same kernels make
of the same shapes: a test that asks for it has to run just those.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ONE_MODULE = 1e-5
"""One layer or module in fp32: up to a few hundred roundings of 6e-8 of the range, of which most cancel. Measured: below 1e-6."""
NETWORK = 1e-4
"""A whole network, or some steps of one: measured up to 7e-6 over kernels of three instruction sets and one to four threads."""
FIGURE = 7e-7
"""A PSNR or SSIM of two pictures, of its own value: two programs' sums over pixels of fp32. Measured: up to 6.4e-8, on two
instruction sets. The smallest mistake that was tried is ten times as large as the bound, where it is seen best: 7.3e-6 for SSIM's
K1 of 0.011; others are 8e-4 (sample covariance) to 5e-2 (a sigma of 1.4, K2 of 0.031)."""
CHANGED = 10 * NETWORK
"""At least so far apart are two results that a test wants to differ: ten times what passes for one result, rounded."""


def relative_difference(ours: Any, expected: Any) -> float:
    """max |ours - expected| over max |expected|, of arrays or tensors of one shape. NaN where either has one: equal to no bound.

    Raises AssertionError for shapes that differ, and where `expected` is 0 throughout: then there is no range."""
    ours_64, expected_64 = _array(ours), _array(expected)
    assert ours_64.shape == expected_64.shape, f"expected shape {expected_64.shape}, got {ours_64.shape}"
    range_ = np.abs(expected_64).max()
    assert range_ != 0, "expected values that are not all 0, got no range to compare with"
    return float(np.abs(ours_64 - expected_64).max() / range_)


def assert_close(ours: Any, expected: Any, within: float) -> None:
    """That they are apart by at most `within` of the range of `expected`."""
    apart = relative_difference(ours, expected)
    assert apart <= within, f"expected at most {within:.0e} of the range between them, got {apart:.2e}"


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().to("cpu").double().numpy()
    return np.asarray(values, dtype=np.float64)
