"""The checkpoint of a run: weights, optimiser, EMA, step and torch's random state, written atomically, the last one kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.files import write_atomically

FILE_NAME = "last.pt"


def save(run_dir: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint. A process killed in the middle leaves the former one."""
    write_atomically(run_dir / FILE_NAME, lambda temporary: torch.save(state, temporary))


def exists(run_dir: Path) -> bool:
    """Whether the run has a checkpoint."""
    return (run_dir / FILE_NAME).is_file()


def load(run_dir: Path) -> dict[str, Any]:
    """Read the run's checkpoint (weights_only: nothing in it is executed). Raises ValueError if there is none or it is
    damaged."""
    path = run_dir / FILE_NAME
    if not path.is_file():
        raise ValueError(f"expected a checkpoint, got no {path}, train this run first")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds for a damaged file
        raise ValueError(f"expected a whole checkpoint, got {path} ({type(error).__name__}), start the run afresh") from error
