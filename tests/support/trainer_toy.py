"""A stage for the tests of the loop: a small network that learns a fixed map from seeded draws, in milliseconds a step."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from training.common.seeds import generator_for
from training.config.overrides import override
from training.config.schema import TrainConfig
from training.loop import loop
from training.loop.run import Run
from training.loop.task import Batch, Metrics, Task
from training.optim.optimisers import BETA1, Groups

STRAYED = 3e-3
"""See `strayed`: bound after a few steps. AdamW divides each gradient by its own size, so that a small one's rounding counts as
much as a large one's: measured up to 3e-4, in the tiny FaithDiff."""


class ToyModel(nn.Module):
    """Two convolutions that train, between them one that does not, and one in bf16 that does not either."""

    _no_split_modules = ["Linear"]

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 7, 3, padding=1)
        self.fixed = nn.Conv2d(7, 7, 1)
        self.coarse = nn.Conv2d(7, 7, 1).bfloat16()
        self.last = nn.Sequential(nn.GELU(), nn.Linear(7, 3))
        self.register_buffer("scale", torch.tensor([0.5, 1.0, 2.0]))

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h = self.fixed(self.first(x_BCHW))
        return h + 0.01 * self.coarse(h.bfloat16()).float()  # little of it: its rounding would hide what is compared

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.last(self.features(x_BCHW).movedim(1, -1)).movedim(-1, 1) * self.scale[:, None, None]


class ToyTask:
    """`draws` counts the places that were asked for, in order."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module = ToyModel()
        self.draws: list[tuple[int, range]] = []
        self.announced: list[tuple[int, range]] = []

    def groups(self) -> Groups:
        named = dict(self.module.named_parameters())
        return [
            ("first", 1.0, {name: value for name, value in named.items() if name.startswith("first.")}),
            ("last", 0.1, {name: value for name, value in named.items() if name.startswith("last.")}),
        ]

    def prefetch(self, step: int, places: range) -> None:
        self.announced.append((step, places))

    def batch(self, step: int, places: range) -> Batch:
        self.draws.append((step, places))
        _, side_px = self.config.crops_at(step)
        generators = [generator_for(self.config.seed, "toy", step, place) for place in places]
        return {"x": torch.stack([torch.randn(3, side_px, side_px, generator=generator) for generator in generators])}

    def loss(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        wanted = batch["x"].flip(1)
        error = module(batch["x"]) - wanted
        return error.square().mean(), {"l1": error.detach().abs().mean(), "rows": float(len(wanted))}

    @torch.no_grad()
    def validate(self, step: int, folder: Path) -> dict[str, float]:
        (folder / f"step-{step:08d}.txt").write_text("seen", encoding="utf-8")
        return {"features": self.module.features(torch.ones(1, 3, 8, 8)).mean().item()}


def toy_config(*settings: str) -> TrainConfig:
    """Six steps of four pictures of 32 px on the CPU, a checkpoint every other step."""
    config = TrainConfig(
        **{"recipe": "toy", "stage": "joint", "network": "tiny", "steps": 6, "batch_size": 4, "crop_px": 32, "lr": 1e-2},
        **{"warmup_steps": 1, "log_every": 1, "save_every": 2, "threads": 1, "precision": "fp32"},
        **{"device": "cpu", "tracker": "none", "lora_rank": 0},
    )
    return override(config, list(settings))


def train_part(
    task: Task, config: TrainConfig, run_dir: Path, *, resume: bool, stop_after: int | None, extra: dict | None = None
) -> None:
    """`loop.train`, ended after so many steps (None = all) as after the last one, but on the schedule of all of them."""
    last = config.steps if stop_after is None else stop_after
    with mock.patch.object(Run, "is_finished", property(lambda run: run.step >= min(last, run.config.steps))):
        loop.train(task, config, run_dir, extra=extra or {}, resume=resume)


def first_gradient(run_dir: Path) -> dict[str, torch.Tensor]:
    """The gradient of a run's first step, from the checkpoint after it: AdamW's first moment is then (1 - 0.9) times that."""
    state = torch.load(run_dir / "checkpoints" / "step-00000001.pt", weights_only=True)
    return {name: values["exp_avg"] / (1 - BETA1) for name, values in state["optimiser"].items()}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of two runs' gradients, relative to the largest gradient."""
    assert one.keys() == other.keys()
    largest = torch.stack([value.abs().max() for value in one.values()]).max()
    return (torch.stack([(value - other[name]).abs().max() for name, value in one.items()]).max() / largest).item()


def strayed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> dict[str, float]:
    """By name: how far two runs' weights are apart, relative to how far the first one's have come from `start`; 0 = equal.

    What one run does not train has not moved, and must be equal."""
    assert one.keys() == other.keys()
    found = {}
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        way = (value - start[name]).float().norm().item()
        apart_by = (value - other[name]).float().norm().item()
        found[name] = apart_by / way if way else math.inf if apart_by else 0.0
    return found


def equal(a: object, b: object) -> bool:
    """Deep equality of checkpoints, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b
