"""Which cases of a parametrised test are left to `make test-long`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def all_long_but(values: Sequence[Any], *short: Any) -> list[Any]:
    """Values for `parametrize`, all but `short` with the mark `long`. Raises AssertionError for a `short` that is none."""
    assert set(short) <= set(values), f"expected some of {values}, got {short}"
    return [value if value in short else pytest.param(value, marks=pytest.mark.long) for value in values]
