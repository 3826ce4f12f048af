"""Hostile files, settings and answers: taken or refused in one message; no code runs, nothing is written elsewhere.

Short; `make fuzz` throws the same kinds of cases by the hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.target import Tally, Target, throw_many
from fuzz.training_targets import targets

CANARY = Path("/nonexistent/canary")


@pytest.mark.parametrize("target", targets(CANARY), ids=lambda target: target.name)
def test_hostile_files(target: Target, tmp_path: Path) -> None:
    tally = Tally()
    throw_many(target, tmp_path, cases=target.short, number=0, tally=tally)
    assert not tally.failures, tally.report()
