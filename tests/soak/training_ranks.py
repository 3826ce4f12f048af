"""Kills one of a run's two processes: the other must end soon and say why, and the run must go on from its checkpoint.

    training_ranks.py WORK [--kills 4] [--launcher] [--seed 0]

WORK: an empty folder. Kills take turns between the main process and the other one, each after a random number of steps.
--launcher: processes of torchrun, which ends the other one itself; else forked ones, without a launcher. Prints one line a kill
and a summary as JSON; exit code 1 = a process outlived BOUND_S, said nothing, or the run did not go on."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1]), str(HERE.parent)]

import psutil  # noqa: E402
from support.forks import start  # noqa: E402
from support.trainer_processes import free_port, torchrun  # noqa: E402
from training_killed import NEVER, SAVE_EVERY, forked, train_arguments, write_sources  # noqa: E402

from training.cli import main as training_main  # noqa: E402
from training.loop import checkpoints  # noqa: E402

TOLD = ("has lost another process of this run", "Root Cause (first observed failure)")
"""What we say, and what torchrun says where it has ended the other process before that could."""
BOUND_S = 60.0
"""torchrun gives a process 30 s from SIGTERM to SIGKILL."""
MANY_STEPS = ["steps=100000", "validate_every=0", "micro_batch_size=1"]


def start_forked(sources: Path, folder: Path) -> list[int]:
    """Two processes of one run; their numbers, the main one's first."""
    port = free_port()

    def work(rank: int) -> int:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        return training_main([*train_arguments(sources, folder), *MANY_STEPS])

    return [start(functools.partial(work, rank), folder / f"printed-{rank}.txt") for rank in range(2)]


def start_launched(sources: Path, folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """The same by torchrun; the launcher, and the numbers of the two once they are there."""
    with (folder / "printed-0.txt").open("a", encoding="utf-8") as printed:
        launcher = subprocess.Popen(
            [sys.executable, *torchrun(2), "-m", "training", *train_arguments(sources, folder), *MANY_STEPS],
            cwd=HERE.parents[2], stdout=printed, stderr=subprocess.STDOUT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    wait_for_steps(folder, 1)
    ranks = {child.environ().get("RANK"): child.pid for child in psutil.Process(launcher.pid).children()}
    return launcher, [ranks["0"], ranks["1"]]


def end_children() -> None:
    """Kills all that this process has started, and what those have: torchrun puts its two into sessions of their own."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_for_steps(folder: Path, count: int) -> None:
    """Until the log has so many rows."""
    end_s = time.monotonic() + 300
    while not (folder / "run/log.jsonl").is_file() or len((folder / "run/log.jsonl").read_text().splitlines()) < count:
        if time.monotonic() > end_s:
            raise SystemExit(f"no {count} steps in 300 s: {printed_by(folder)}")
        time.sleep(0.05)


def printed_by(folder: Path) -> str:
    """What the processes have said, without progress bars."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("printed*.txt")))
    return "\n".join(line for line in text.splitlines() if "it/s" not in line and "s/it" not in line)


def kill_one(sources: Path, folder: Path, victim: int, steps: int, *, launched: bool) -> tuple[float, str]:
    """Kill process `victim` of a new run after so many steps; (seconds until the other has ended, what is wrong or "")."""
    launcher, numbers = start_launched(sources, folder) if launched else (None, start_forked(sources, folder))
    wait_for_steps(folder, steps)
    os.kill(numbers[victim], signal.SIGKILL)
    killed_s = time.monotonic()
    if launcher:
        ended_s, code = _wait_for_launcher(launcher)
    else:
        ended_s, code = _wait_for_child(numbers[1 - victim])
        os.waitpid(numbers[victim], 0)
    fault = ""
    if ended_s - killed_s > BOUND_S:
        fault = f"the other process ended only after {ended_s - killed_s:.0f} s"
    elif (not launched and code != 5) or not code or not any(words in printed_by(folder) for words in TOLD):
        fault = f"exit code {code}: {printed_by(folder)[-2000:]}"
    return ended_s - killed_s, fault or _go_on(sources, folder)


def _wait_for_child(number: int) -> tuple[float, int]:
    """(time of its end, its exit code); killed after BOUND_S."""
    end_s = time.monotonic() + BOUND_S + 5
    while not os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() > end_s:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.02)
    return time.monotonic(), os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def _wait_for_launcher(launcher: subprocess.Popen[bytes]) -> tuple[float, int]:
    """(time of its end, its exit code); killed with its processes after BOUND_S."""
    try:
        launcher.wait(BOUND_S + 5)
    except subprocess.TimeoutExpired:
        end_children()
    return time.monotonic(), launcher.wait()


def _go_on(sources: Path, folder: Path) -> str:
    """Let one process go on for some steps; what is wrong, or ""."""
    held = checkpoints.load(folder / "run")["step"] if checkpoints.exists(folder / "run") else 0
    code, _ = forked(sources, folder, NEVER, more=[*MANY_STEPS, f"steps={held + SAVE_EVERY}"])
    if code or checkpoints.load(folder / "run")["step"] != held + SAVE_EVERY:
        return f"it did not go on from step {held}: exit code {code}: {printed_by(folder)[-2000:]}"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run the soak of the command line; 0 = as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--launcher", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    drawn = random.Random(options.seed)
    sources = options.work / "sources"
    sources.mkdir(parents=True)
    write_sources(sources)
    waited, faults = [], []
    try:
        for index in range(options.kills):
            folder = options.work / f"run-{index}"
            folder.mkdir()
            steps = drawn.randint(1, 3 * SAVE_EVERY)
            seconds, fault = kill_one(sources, folder, index % 2, steps, launched=options.launcher)
            waited.append(round(seconds, 1))
            faults += [f"{folder.name}: {fault}"] if fault else []
            told = f"process {index % 2} killed after step {steps}, the other's end {seconds:.1f} s later"
            print(f"{folder.name}: {told}", flush=True)
    finally:
        end_children()  # whatever went wrong, nothing trains on
    print(json.dumps({"kills": options.kills, "seconds_to_the_others_end": waited, "faults": faults}, indent=2))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
