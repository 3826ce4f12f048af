"""Runs toy_worker.py in processes of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WORKER = Path(__file__).with_name("toy_worker.py")
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}
"""What `accelerate launch --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP` sets; the launcher itself
takes these options for GPUs only."""


def start(
    *arguments: str | Path, launcher: tuple[str, ...] = (), variables: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """The worker as a process of its own session; `launcher` = arguments for Python in front of the script."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(variables or {})}
    return subprocess.Popen(
        [sys.executable, *launcher, str(WORKER), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], *, timeout_s: float = 240) -> tuple[int, str]:
    """(exit code, everything it printed)."""
    printed, _ = process.communicate(timeout=timeout_s)
    return process.returncode, printed


def torchrun(count: int) -> tuple[str, ...]:
    """Launcher of `count` processes on this machine."""
    return ("-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", str(free_port()))


def accelerate_launch(count: int) -> tuple[str, ...]:
    """The same by accelerate."""
    port = ("--main_process_port", str(free_port()))
    return ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(count), "--num_machines", "1", *port)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(holds: Callable[[], bool], *, timeout_s: float = 120) -> None:
    """Until `holds()`; fails after the time."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it has not happened in time"
        time.sleep(0.02)
