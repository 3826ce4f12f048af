"""Hostile files, settings and answers: taken or refused in one message; no code runs, nothing is written elsewhere.

Short; `make fuzz` throws the same kinds of cases by the hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.pickle_cases import CANARY
from fuzz.target import LARGEST_PX, Tally, Target, throw_many
from fuzz.training_targets import targets
from PIL import Image


@pytest.mark.parametrize("target", targets(CANARY), ids=lambda target: target.name)
def test_hostile_files(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LARGEST_PX)
    CANARY.unlink(missing_ok=True)
    tally = Tally()
    throw_many(target, tmp_path, cases=target.short, number=0, tally=tally)
    assert not tally.failures, tally.report()
    assert not CANARY.exists()
