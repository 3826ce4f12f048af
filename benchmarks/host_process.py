"""Makes this process one of the host's, with the pack in it as `comfyui_faithdiff`, before anything else of the host is
imported."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


def enter(device: str) -> None:
    """Host and pack become importable; torch's own attention everywhere, and one thread on a CPU.

    Raises:
        ValueError: a GPU is asked for, and there is none.
    """
    sys.path.insert(0, str(TESTS))
    import conftest  # noqa: F401 - puts the host and the pack where imports find them
    import torch
    from comfy.cli_args import args

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a GPU for --device cuda, got none that torch can use; take --device cpu")
    args.cpu = device == "cpu"
    args.use_pytorch_cross_attention = True  # what the official code runs on, too
    if device == "cpu":
        torch.set_num_threads(1)


def clock(device: str) -> Callable[[], float]:
    """Seconds of this process's CPU time on a CPU, which other load does not change; wall time on a GPU that has caught up."""
    if device == "cpu":
        return time.process_time
    import torch

    def caught_up() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return caught_up
