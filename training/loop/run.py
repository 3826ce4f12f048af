"""A run in memory: module, optimiser, average and step, made anew or put back from a checkpoint, and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.common.devices import warn
from training.common.files import write_text
from training.common.results import require_own
from training.common.stopping import SaveError
from training.config.overrides import from_json, to_json
from training.config.schema import TrainConfig
from training.loop import checkpoints
from training.loop.engine import Engine
from training.loop.schedule import lr_factor, micro_batches
from training.loop.task import Task
from training.optim.ema import EMA
from training.optim.optimisers import FusedBackward, make_optimiser, only_train, trainable
from training.optim.sharding import full_tensor
from training.optim.states import load_by_name, state_by_name

CONFIG = "config.json"
MAY_CHANGE = (
    *("steps", "micro_batch_size", "gradient_checkpointing", "ema_on_cpu", "device", "threads", "workers", "cache_bytes"),
    *("save_every", "keep_checkpoints", "log_every", "validate_every", "validation_pictures", "validation_sampling_steps"),
    *("tracker", "max_unreadable_frac", "lr", "clip_norm"),
)
"""Settings that a resumed run may change. Another number of steps stretches the cosine from here on, a lower learning rate or
norm helps a run that has diverged; the others change no result, but for rounding."""


SAME_FACTS = {"data_digest": "pictures", "vae_digest": "VAE", "model_digest": "model", "perceptual": "perceptual distance"}
"""Facts of a checkpoint that decide what every further step is made of, and what they are of."""


def former_state(run_dir: Path, config: TrainConfig, extra: dict[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, None for a new run. Settings that may change and did are told in one line.

    Raises:
        ValueError: there is one and `resume` is False, its settings or the facts in `extra` differ, or none is whole; the folder
            holds another program's files.
    """
    if not checkpoints.exists(run_dir):
        require_own(run_dir / CONFIG, "config.json of a run", _is_config)
        return None
    if not resume:
        raise ValueError(f"expected a new run folder, got {run_dir}, which holds a checkpoint; add --resume or choose another")
    state = checkpoints.load(run_dir)
    held = from_json(state["config"])
    changed = [name for name in vars(held) if getattr(held, name) != getattr(config, name)]
    refused = [name for name in changed if name not in MAY_CHANGE]
    if refused:
        raise ValueError(f"expected the run's own settings, got other values for {', '.join(refused)}, choose another --out")
    for name, what in SAME_FACTS.items():
        before, now = (str(facts.get(name, "")) for facts in (state["extra"], extra))
        if before and now and before != now:
            raise ValueError(
                f"expected the {what} that {run_dir} was begun with (digest {before[:16]}), got others ({now[:16]}); give those, "
                "or begin another --out with --init and this run"
            )
    if changed:
        listed = ", ".join(f"{name} {getattr(config, name)} (was {getattr(held, name)})" for name in changed)
        warn(f"{run_dir} goes on with other settings than it was left with: {listed}")
    return state


def _is_config(path: Path) -> bool:
    return bool(from_json(path.read_text(encoding="utf-8")))


class Run:
    """`extra` (plain values) is kept in the checkpoints for the export; `state` is what `former_state` found."""

    def __init__(
        self, task: Task, config: TrainConfig, run_dir: Path, extra: dict[str, Any], engine: Engine, state: dict[str, Any] | None
    ) -> None:
        self.task, self.config, self.run_dir, self.extra, self.engine = task, config, run_dir, extra, engine
        self.failure = ""
        """Why the newest state is not on disk; empty = it is, or has not been due."""
        self.step = int(state["step"]) if state is not None else 0
        """Optimiser steps done."""
        self.row: dict[str, float] = state.get("row", {}) if state is not None else {}
        """The log's row of the step that the run goes on from; a run killed after its checkpoint has not written it."""
        self._frozen_crc32: int | None = state.get("frozen_crc32") if state is not None else None
        only_train(task.module, task.groups())
        if state is not None:
            task.module.load_state_dict(state["model"])
        if engine.is_main:
            self._open_folder(new=state is None)
        self.module = engine.wrap(task.module)
        groups = task.groups()
        self.parameters = trainable(groups)
        self.optimiser = FusedBackward(groups, config) if config.fused_backward else make_optimiser(groups, config)
        self.ema = EMA(self.parameters, max_decay=config.ema_decay, on_cpu=config.ema_on_cpu)
        if state is not None:
            load_by_name(self.optimiser, state["optimiser"], self.parameters)
            self.ema.load(state["ema"], self.parameters)
        self.saved_step = self.step

    def _open_folder(self, *, new: bool) -> None:
        if new:
            trained = trainable(self.task.groups())
            weights = self.task.module.state_dict()
            frozen = {name: value for name, value in weights.items() if name not in trained}
            self._frozen_crc32 = checkpoints.begin(self.run_dir, frozen)
        checkpoints.tidy(self.run_dir, self.step)
        write_text(self.run_dir / CONFIG, to_json(self.config) + "\n")

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.config.steps

    def set_lr(self) -> float:
        """Set the step's learning rate in every group; returns that of scale 1."""
        config = self.config
        lr = config.lr * lr_factor(self.step, steps=config.steps, warmup_steps=config.warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["lr_scale"]
        return lr

    def micro_batches(self, step: int) -> list[range]:
        """This process's micro-batches of a step."""
        return micro_batches(
            self.config.crops_at(step)[0],
            processes=self.engine.processes,
            process=self.engine.process,
            micro_batch_size=self.config.micro_batch_size,
        )

    def clip(self) -> float:
        """Clip the step's gradients; returns the norm they had."""
        if isinstance(self.optimiser, FusedBackward):
            return self.optimiser.norm().item()
        return self.engine.clip(list(self.parameters.values()), self.config.clip_norm)

    def update(self) -> None:
        """End the step: weights, average, counter."""
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(self.parameters, self.step)
        self.step += 1

    def save(self, row: dict[str, float]) -> None:
        """Write a checkpoint; all processes call it, the main one writes. `row`: the step's row of the log, {} = none is due.

        A disk that is full or gone costs a warning and is kept in `failure`: training goes on, and the next save tries again.
        """
        keep = self.engine.is_main
        state = {
            "config": to_json(self.config),
            "step": self.step,
            "trained": {name: full_tensor(parameter.detach(), keep=keep) for name, parameter in self.parameters.items()},
            "optimiser": state_by_name(self.optimiser, self.parameters, keep=keep),
            "ema": self.ema.state(self.parameters, keep=keep),
            "extra": self.extra,
            "row": row,
            "frozen_crc32": self._frozen_crc32,
        }
        self.failure = ""
        if keep:
            try:
                checkpoints.save(self.run_dir, state, keep=self.config.keep_checkpoints)
            except OSError as error:
                self.failure = str(error)
                warn(f"step {self.step} could not be saved ({error}); the former checkpoint is kept and training goes on")
        self.saved_step = self.step

    def finish(self) -> None:
        """Make sure that the last step is on disk.

        Raises:
            SaveError: in every process, if it is not.
        """
        if self.saved_step != self.step:
            self.save({})
        if self.engine.mean([float(bool(self.failure))])[0]:
            reason = self.failure or "the main process could not write"
            raise SaveError(f"step {self.step} could not be saved ({reason}); make room and go on with --resume")
