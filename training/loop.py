"""One loop for every stage: optimiser, schedule, clipping, EMA, checkpoints, progress. It knows nothing of what is trained."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from training import runstate
from training.config import TrainConfig, from_json, to_json
from training.ema import EMA
from training.files import write_text
from training.schedule import lr_factor

MAY_CHANGE = ("steps", "threads", "save_every", "log_every", "cache_bytes")
"""Settings that a resumed run may change. Another number of steps stretches the cosine from here on; the others change no
result."""

Groups = list[tuple[str, float, dict[str, torch.nn.Parameter]]]


class Task(Protocol):
    """A stage: its module, what of it trains, its batches and its loss. `batch` must depend on the step alone."""

    @property
    def module(self) -> torch.nn.Module: ...

    def groups(self) -> Groups: ...

    def batch(self, step: int) -> dict[str, torch.Tensor]: ...

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]: ...


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a finite number."""


def trainable(groups: Groups) -> dict[str, torch.nn.Parameter]:
    """All parameters of the groups, by their name in the module."""
    return {name: parameter for _, _, members in groups for name, parameter in members.items()}


def make_optimiser(groups: Groups, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the groups; each group remembers its share of the learning rate."""
    listed = [{"params": list(members.values()), "share": share, "name": name} for name, share, members in groups]
    return torch.optim.AdamW(listed, lr=config.lr, betas=(0.9, config.adam_beta2), weight_decay=config.weight_decay)


def check_frozen(module: torch.nn.Module, groups: Groups) -> None:
    """Set requires_grad to match the groups exactly, so that nothing frozen costs or keeps a gradient."""
    trained = {id(parameter) for parameter in trainable(groups).values()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def train(
    task: Task, config: TrainConfig, run_dir: Path, *, extra: dict[str, Any], resume: bool, stop_after: int | None = None
) -> dict[str, float]:
    """Run (or go on with) a stage until config.steps, or until `stop_after` steps are done (for tests). Returns the last figures.

    `extra` (plain values) is kept in the checkpoint for the export. Raises DivergedError for a loss that is not finite: the last
    checkpoint stays as it was. Raises ValueError if a checkpoint exists and `resume` is False, or the configuration differs."""
    groups = task.groups()
    check_frozen(task.module, groups)
    parameters = trainable(groups)
    optimiser = make_optimiser(groups, config)
    ema = EMA(parameters, max_decay=config.ema_decay)
    step = 0
    if runstate.exists(run_dir):
        if not resume:
            raise ValueError(
                f"expected a new run folder, got {run_dir}, which holds a checkpoint; add --resume or choose another"
            )
        step = _restore(runstate.load(run_dir), task, config, optimiser, ema)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(run_dir / "config.json", to_json(config) + "\n")
    last_step = min(config.steps, stop_after) if stop_after is not None else config.steps
    figures: dict[str, float] = {}
    bar = tqdm(total=config.steps, initial=step, desc=config.recipe, mininterval=2.0, dynamic_ncols=True)
    window: list[float] = []
    images, started = 0, time.monotonic()
    while step < last_step:
        factor = lr_factor(step, steps=config.steps, warmup_steps=config.warmup_steps, final_frac=config.final_lr_frac)
        for group in optimiser.param_groups:
            group["lr"] = config.lr * group["share"] * factor
        batch = task.batch(step)
        loss, figures = task.loss(batch)
        if not math.isfinite(loss.item()):
            raise DivergedError(f"loss is {loss.item()} at step {step}; the last checkpoint is kept; lower lr and add --resume")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), config.clip_norm).item()
        if not math.isfinite(norm):
            raise DivergedError(f"gradient norm is {norm} at step {step}; the last checkpoint is kept; lower lr and add --resume")
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        ema.update(parameters, step)
        step += 1
        window.append(loss.item())
        images += len(next(iter(batch.values())))
        bar.update()
        if step % config.log_every == 0 or step == last_step:
            rate = images / (time.monotonic() - started)
            figures = {"loss": sum(window) / len(window), "grad_norm": norm, "images_per_s": rate, **figures}
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
            _log(run_dir, {"step": step, "lr": config.lr * factor, **figures})
            window, images, started = [], 0, time.monotonic()
        if step % config.save_every == 0 or step == last_step:
            runstate.save(run_dir, _state(task, config, optimiser, ema, step, extra))
    bar.close()
    return figures


def _state(
    task: Task, config: TrainConfig, optimiser: torch.optim.AdamW, ema: EMA, step: int, extra: dict[str, Any]
) -> dict[str, Any]:
    return {
        "config": to_json(config),
        "step": step,
        "model": task.module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "ema": ema.shadow,
        "rng": torch.get_rng_state(),
        "extra": extra,
    }


def _restore(state: dict[str, Any], task: Task, config: TrainConfig, optimiser: torch.optim.AdamW, ema: EMA) -> int:
    """Put a checkpoint back; returns the number of optimiser steps done."""
    held = from_json(state["config"])
    changed = [name for name in vars(held) if getattr(held, name) != getattr(config, name) and name not in MAY_CHANGE]
    if changed:
        raise ValueError(f"expected the run's own settings, got other values for {', '.join(changed)}, choose another --out")
    task.module.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    if set(state["ema"]) != set(ema.shadow):
        raise ValueError("expected the run's own parameters in the checkpoint, got others, choose another --out")
    ema.shadow = state["ema"]
    torch.set_rng_state(state["rng"])
    return int(state["step"])


def _log(run_dir: Path, row: dict[str, float]) -> None:
    with (run_dir / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
