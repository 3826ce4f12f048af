"""One loop for every stage, on any number of processes. It knows nothing of what is trained."""

from __future__ import annotations

import contextlib
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from training.common.devices import warn
from training.common.seeds import seed_for
from training.common.stopping import DivergedError, Interrupted, Interrupts
from training.config.schema import TrainConfig
from training.loop import checkpoints
from training.loop.engine import Engine
from training.loop.progress import Reports, usable_tracker
from training.loop.run import Run, former_state
from training.loop.run_lock import only_run_in
from training.loop.schedule import check_batches
from training.loop.task import Task
from training.optim.optimisers import FusedBackward


def train(task: Task, config: TrainConfig, run_dir: Path, *, extra: dict[str, Any], resume: bool) -> dict[str, float]:
    """Run (or go on with) a stage until config.steps. Returns the last metrics.

    `extra` (plain values) is kept in the checkpoints for the export.

    Raises:
        DivergedError: a loss or gradient that is not finite: the last checkpoint stays as it was.
        ValueError: a checkpoint exists and `resume` is False, the configuration differs from the run's, or the batch cannot be
            shared evenly.
        SaveError: the end could not be saved.
        Interrupted: after a signal, once the step is saved.
    """
    engine = Engine(config, run_dir, tracker=usable_tracker(config.tracker))
    check_batches(config, engine.processes)
    with engine.naming_lost_processes(), only_run_in(run_dir, engine):
        state = former_state(run_dir, config, extra, resume=resume)
        engine.same_everywhere(0 if state is None else state["step"], "the newest whole checkpoint's step")
        run = Run(task, config, run_dir, extra, engine, state)
        del state
        reports = Reports(engine, config, run_dir, run.step)
        with Interrupts() as interrupts:
            try:
                metrics, stopped_by = _steps(run, reports, interrupts)
            finally:
                reports.close()
            run.finish()  # where a signal has stopped it between two saves, it saves now
    if stopped_by:
        raise Interrupted(stopped_by, run.step)
    return metrics


def _steps(run: Run, reports: Reports, interrupts: Interrupts) -> tuple[dict[str, float], int]:
    """The last row of metrics, and the signal that ended it (0 = none)."""
    config, first_step = run.config, run.step
    metrics = _former_row(run, reports)
    stopped_by = 0
    while not run.is_finished and not stopped_by:
        lr = run.set_lr()
        norm, stopped_by = _step(run, reports, interrupts, first=run.step == first_step)
        reports.advance()
        validates = _validates(run) and not stopped_by
        row: dict[str, float] = {}
        if run.step % config.log_every == 0 or validates or run.is_finished or stopped_by:
            row = reports.row(run.step, lr=lr, norm=norm)
        if run.step % config.save_every == 0 or run.is_finished:
            run.save(row)
        if row:
            metrics = _report(run, reports, row, validates=validates)
    return metrics, stopped_by


def _validates(run: Run) -> bool:
    return bool(run.config.validate_every) and (run.step % run.config.validate_every == 0 or run.is_finished)


def _former_row(run: Run, reports: Reports) -> dict[str, float]:
    """Report the step that the run goes on from, if it was killed after that checkpoint and before its row; returns the row."""
    if not run.engine.mean([float(bool(run.row) and reports.row_missing)])[0]:
        return {}
    return _report(run, reports, run.row, validates=_validates(run))


def _report(run: Run, reports: Reports, row: dict[str, float], *, validates: bool) -> dict[str, float]:
    """Write a step's row, with its validation if that is due; returns the whole row."""
    found, pictures = _validate(run) if validates else ({}, [])
    metrics = row | {f"validation/{name}": value for name, value in found.items()}
    reports.write(metrics, pictures)
    return metrics


def _step(run: Run, reports: Reports, interrupts: Interrupts, *, first: bool) -> tuple[float, int]:
    """One optimiser step. Returns the norm of its gradient and the signal that any process has received (0 = none)."""
    started_s = time.monotonic()
    # The same in every process, so that replicas stay alike; and the same after a resume.
    torch.manual_seed(seed_for(run.config.seed, "step", run.step))
    loss = _backward(run, reports)
    if first and not isinstance(run.optimiser, FusedBackward):
        _check_reached(run)
    norm = run.clip()
    signals = (signal.SIGINT, signal.SIGTERM)
    loss, *taken = run.engine.mean([loss, *(float(interrupts.received == number) for number in signals)])
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            raise DivergedError(
                f"{name} is {value} at step {run.step}; the last checkpoint is kept; go on from it with --resume and a lower lr"
            )
    run.update()
    reports.window.add_step(loss, run.config.crops_at(run.step - 1)[0], time.monotonic() - started_s)
    return norm, next((int(number) for number, share in zip(signals, taken, strict=True) if share), 0)


def _backward(run: Run, reports: Reports) -> torch.Tensor:
    """Gradients of the step's mean loss; returns this process's part of it."""
    parts = run.micro_batches(run.step)
    crops = sum(len(part) for part in parts)
    total = torch.zeros((), device=run.engine.device)
    for index, part in enumerate(parts):
        batch = run.task.batch(run.step, part)
        _prefetch(run, parts[index + 1 :])
        with run.engine.accumulating(run.module, last=index == len(parts) - 1):
            loss, metrics = run.task.loss(run.module, batch)
            weighted = loss * (len(part) / crops)
            weighted.backward()
        total += weighted.detach()
        reports.window.add_metrics(metrics, len(part) / crops)
    return total


def _prefetch(run: Run, left: list[range]) -> None:
    """Announce the micro-batch after this one, of which `left` are left in this step."""
    if left:
        run.task.prefetch(run.step, left[0])
    elif run.step + 1 < run.config.steps:
        run.task.prefetch(run.step + 1, run.micro_batches(run.step + 1)[0])


def _check_reached(run: Run) -> None:
    members = [(name, parameter.grad) for name, _, values in run.task.groups() for parameter in values.values()]
    assert any(gradient is not None for _, gradient in members), f"no gradient has reached {', '.join(sorted(dict(members)))}"


def _validate(run: Run) -> tuple[dict[str, float], list[Path]]:
    """Figures and pictures of the averaged weights. Sharded parameters need every process; the main one's results count."""
    engine = run.engine
    if not engine.is_main and not engine.sharded:
        return {}, []
    try:
        with _pictures_folder(run) as folder, run.ema.in_place(run.parameters), engine.evaluating(run.task.module):
            metrics = run.task.validate(run.step, folder)
    except OSError as error:
        warn(f"validation at step {run.step} was given up ({error}); training goes on")
        return {}, []
    return metrics, sorted(folder.glob(f"step-{run.step:08d}*.png")) if engine.is_main else []


@contextlib.contextmanager
def _pictures_folder(run: Run) -> Iterator[Path]:
    """The run's folder of validation pictures; in processes but the main one, which measure only, a passing one."""
    if not run.engine.is_main:
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere)
        return
    folder = run.run_dir / checkpoints.VALIDATION
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
