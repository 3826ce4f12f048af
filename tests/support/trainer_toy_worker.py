"""Trains the toy task, or the tiny composite, in a process of its own:

    trainer_toy_worker.py TASK OUT [KEY=VALUE ...] [-- TASK OUT ...]

TASK: toy; slow (50 ms a step); stuck (waits in its 13th step until it is killed); failing (its second process raises at step 2);
model (the tiny FaithDiff); fidelity (its fidelity decoder). Several runs follow one another in the same processes. KEY may be
stop_after, too; sharded=no: as if launched without FSDP2. Of wrong input the message is printed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from accelerate.state import AcceleratorState  # noqa: E402

from support.trainer_toy import ToyTask, toy_config, train_part  # noqa: E402
from training.config.schema import TrainConfig  # noqa: E402
from training.loop import loop  # noqa: E402
from training.loop.task import Batch, Task  # noqa: E402


class Slow(ToyTask):
    def batch(self, step: int, places: range) -> Batch:
        time.sleep(0.05)
        return super().batch(step, places)


class Stuck(ToyTask):
    def batch(self, step: int, places: range) -> Batch:
        while step == 12:
            time.sleep(1)
        return super().batch(step, places)


class Failing(ToyTask):
    def batch(self, step: int, places: range) -> Batch:
        if step == 2 and os.environ["RANK"] == "1":
            raise RuntimeError("a process failed on purpose")
        return super().batch(step, places)


def run(task: str, out: str, *settings: str) -> None:
    kinds: dict[str, Callable[[TrainConfig], Task]] = {"toy": ToyTask, "slow": Slow, "stuck": Stuck, "failing": Failing}
    if task == "model":
        from support.trainer_toy_model import ModelTask

        kinds["model"] = ModelTask
    if task == "fidelity":
        from support.trainer_toy_fidelity import ToyFidelityTask

        kinds["fidelity"] = ToyFidelityTask
    stops = [int(setting.removeprefix("stop_after=")) for setting in settings if setting.startswith("stop_after=")]
    if "sharded=no" in settings:
        os.environ["ACCELERATE_USE_FSDP"] = "false"
        AcceleratorState._reset_state()  # keeps the processes' connection
    config = toy_config(*(setting for setting in settings if not setting.startswith(("stop_after=", "sharded="))))
    try:
        train_part(kinds[task](config), config, Path(out), resume=True, stop_after=stops[0] if stops else None)
    except loop.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)


if __name__ == "__main__":
    arguments: list[str] = []
    for argument in [*sys.argv[1:], "--"]:
        if argument == "--":
            run(*arguments)
            arguments = []
        else:
            arguments.append(argument)
