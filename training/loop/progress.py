"""What a run reports: the bar, log.jsonl, accelerate's experiment trackers (tensorboard, wandb, ...). Figures are means over the
steps since the row before. A tracker that fails never stops a run: log.jsonl has it all.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker, get_available_trackers
from PIL import Image
from tqdm import tqdm

from training.common.devices import memory_gb, warn
from training.common.files import write_text
from training.config.schema import TrainConfig
from training.loop.engine import Engine

LOG = "log.jsonl"
ON_BAR = ("loss", "images_per_s", "memory_gb")
"""Beside what tqdm shows itself: steps done, time left, steps per second."""
NONE = "none"


class Window:
    """Sums since the last row: losses, the task's metrics (each weighted by its part of a step), images and seconds."""

    def __init__(self) -> None:
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.loss = 0.0
        self.metrics: dict[str, float | torch.Tensor] = {}

    def add_metrics(self, metrics: dict[str, float | torch.Tensor], weight: float) -> None:
        """Metrics of one micro-batch that has this weight in the process's step. Tensors stay on their device until the row."""
        for name, value in metrics.items():
            value = value.detach() if isinstance(value, torch.Tensor) else value
            self.metrics[name] = self.metrics.get(name, 0.0) + weight * value

    def add_step(self, loss: float, images: int, seconds: float) -> None:
        """One whole step."""
        self.steps += 1
        self.images += images
        self.seconds += seconds
        self.loss += loss


class Reports:
    """Rows for log.jsonl, the bar and the tracker. All processes call it alike; the main one writes."""

    def __init__(self, engine: Engine, config: TrainConfig, run_dir: Path, step: int) -> None:
        self._engine = engine
        self._path = run_dir / LOG
        self._trackers = Trackers(engine.accelerator, config, step)
        self.window = Window()
        self.row_missing = engine.is_main and drop_rows_after(self._path, step) < step
        """Whether the log has no row of the step that the run goes on from (in the main process)."""
        self._bar = tqdm(
            total=config.steps, initial=step, desc=config.recipe, mininterval=2.0, dynamic_ncols=True, disable=not engine.is_main
        )

    def advance(self) -> None:
        """One step more on the bar."""
        self._bar.update()

    def row(self, step: int, *, lr: float, norm: float) -> dict[str, float]:
        """The metrics of the window, which starts anew; averaged over the processes."""
        window, self.window = self.window, Window()
        values = self._engine.mean([value / window.steps for value in window.metrics.values()]) if window.metrics else []
        return {
            "step": step,
            "lr": lr,
            "loss": window.loss / window.steps,
            "grad_norm": norm,
            "images_per_s": window.images / window.seconds,
            "memory_gb": memory_gb(self._engine.device),
            **dict(zip(window.metrics, values, strict=True)),
        }

    def write(self, row: dict[str, float], pictures: list[Path]) -> None:
        """One row, and the pictures that belong to it."""
        step = int(row["step"])
        self._bar.set_postfix({name: f"{row[name]:.4g}" for name in ON_BAR})
        if self._engine.is_main:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                warn(f"the row of step {step} was not written to {self._path} ({error})")
        self._trackers.log({name: value for name, value in row.items() if name != "step"}, step)
        self._trackers.pictures(pictures, step)

    def close(self) -> None:
        """End the bar and the tracker."""
        self._bar.close()
        self._trackers.close()


def drop_rows_after(path: Path, step: int) -> int:
    """Take rows beyond `step`, and half-written ones, out of a log: a run goes on from its checkpoint and writes them again.

    Returns the step of the last row, 0 = there is none.
    """
    if not path.is_file():
        return 0
    # What a crash of the machine has left there may be no text at all.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and (found := _step_of(line)) is not None and found <= step]
    if kept != lines:
        write_text(path, "".join(kept))
    return max((_step_of(line) or 0 for line in kept), default=0)


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def usable_tracker(name: str) -> str | None:
    """The name; None for "none" and, with a warning, for a package that is not there.

    Raises:
        ValueError: an unknown one.
    """
    if name == NONE:
        return None
    known = sorted(str(kind) for kind in LOGGER_TYPE_TO_CLASS)
    if name not in known:
        raise ValueError(f"expected tracker to be {', '.join(known)} or {NONE}, got {name!r}, correct --set tracker=")
    if name not in [str(kind) for kind in get_available_trackers()]:
        warn(f"tracker {name} is not installed, only log.jsonl is written")
        return None
    return name


class Trackers:
    """The run's tracker, if it has one. Methods are for every process to call; writing is the main one's."""

    def __init__(self, accelerator: Accelerator, config: TrainConfig, first_step: int) -> None:
        self._accelerator = accelerator
        # What a killed run had written beyond its checkpoint is hidden.
        options = {"tensorboard": {"purge_step": first_step + 1}}
        self._working = bool(accelerator.log_with)
        self._try(lambda: accelerator.init_trackers(config.tracker, config=vars(config), init_kwargs=options))

    def log(self, row: dict[str, float], step: int) -> None:
        """Metrics of one step."""
        self._try(lambda: self._accelerator.log(row, step=step))

    def pictures(self, paths: list[Path], step: int) -> None:
        """PNG files of one step, for trackers that take pictures."""
        self._try(lambda: self._log_pictures(paths, step))

    def close(self) -> None:
        """Write what is still held back."""
        for tracker in self._accelerator.trackers:
            self._try(tracker.finish)

    def _log_pictures(self, paths: list[Path], step: int) -> None:
        for tracker in self._accelerator.trackers:
            if isinstance(tracker, TensorBoardTracker):
                for index, path in enumerate(paths):
                    with Image.open(path) as picture:
                        image_HWC = np.asarray(picture.convert("RGB"))
                    tracker.log_images({f"validation/{index}": image_HWC[None]}, step=step, dataformats="NHWC")

    def _try(self, act) -> None:  # noqa: ANN001
        if not self._working:
            return
        try:
            act()
        except Exception as error:  # each tracker raises its own kinds, network errors among them
            self._working = False
            warn(f"the tracker failed ({type(error).__name__}: {error}), from here on only log.jsonl is written")
