"""The device and the place of this process, before and after accelerate has been set up."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import psutil
import torch
from accelerate import PartialState
from tqdm import tqdm

PROCESS_TIMEOUT = timedelta(minutes=60)
"""How long a process waits for the others. Validation and the first reading of prompts run on the main one alone; beyond this,
another process has failed, and an error is better than waiting for ever."""


def device_of(choice: str) -> torch.device:
    """This process's device. "auto": its own GPU where there is one, else the CPU; "cpu": the CPU."""
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def process_state(choice: str) -> PartialState:
    """This process among the run's processes, which it joins when first asked: is_main_process, main_process_first(), ...
    `choice` as for `device_of`.
    """
    return PartialState(cpu=device_of(choice).type == "cpu", timeout=PROCESS_TIMEOUT)


def memory_gb(device: torch.device) -> float:
    """GPU: the most that tensors have taken so far; CPU: what the process has in main memory now. In 1e9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


def warn(text: str) -> None:
    """One line on stderr, from the main process, above a progress bar if there is one."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(f"warning: {text}", file=sys.stderr)
