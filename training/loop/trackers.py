"""accelerate's experiment trackers (tensorboard, wandb, ...). One that fails never stops a run: log.jsonl has it all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker, get_available_trackers
from PIL import Image

from training.common.devices import warn
from training.config.schema import TrainConfig

NONE = "none"


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
