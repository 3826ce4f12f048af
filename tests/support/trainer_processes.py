"""Runs trainer_toy_worker.py in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from support.patience import PATIENCE_S

WORKER = Path(__file__).with_name("trainer_toy_worker.py")
FSDP2 = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")


def start(*arguments: str | Path, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The worker as a process of its own session; `launcher` = arguments for Python in front of the script."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *launcher, str(WORKER), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], *, timeout_s: float = 3 * PATIENCE_S) -> tuple[int, str]:
    """(exit code, everything it printed). One that hangs is killed with all that it has started, and subprocess.TimeoutExpired
    raised; the time is for several runs of two processes, one after another."""
    try:
        printed, _ = process.communicate(timeout=timeout_s)
    except BaseException:  # nobody else ends what it has started
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, printed


def torchrun(count: int) -> tuple[str, ...]:
    """Launcher of `count` processes on this machine."""
    return ("-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", str(free_port()))


def accelerate_launch(count: int, *options: str) -> tuple[str, ...]:
    """The same by accelerate, as for GPUs: with --cpu it starts several by MPI only. The task says on which device it runs."""
    base = ("--num_processes", str(count), "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    return ("-m", "accelerate.commands.launch", *base, "--main_process_port", str(free_port()), *(options or ("--multi_gpu",)))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(holds: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
    """Until `holds()`; fails after the time."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it has not happened in time"
        time.sleep(0.02)
