"""Which test files come first, so that workers that share them out end together."""

from __future__ import annotations

from pathlib import PurePath

LONG = {
    "server", "study", "stages", "loop", "weights", "commands", "test_official.py", "test_trainer_agrees.py", "test_tiles.py",
    "test_composes.py",
}  # fmt: skip
"""Folders and files whose tests take long: the first."""
QUICK = {"core"}
"""Folders of many short files: the last."""


def place_in_line(path: PurePath) -> int:
    """For sorting test files by their paths in tests/."""
    return 0 if LONG.intersection(path.parts) else 2 if QUICK.intersection(path.parts) else 1
