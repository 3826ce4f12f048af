"""Time of a training step, ours against the official way of stepping, on the same networks, weights and batch, in one process.

A round takes one step in each way, in turn, and the ratios are of the same round. Time is the process's CPU time on one thread:
the wall time of a machine that does nothing else. Reading and degrading pictures is left out, as is the VAE: both ways need it.
Ours updates the fp32 average at every step; the official way, which does at every hundredth, is let off."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from rows import Row, compared  # noqa: E402
from train_official import OFFICIAL, OURS, TEXT_SIZES, Habits, TextEncoders, checkpointed_levels  # noqa: E402

from training.config.schema import TrainConfig  # noqa: E402
from training.model.faithdiff import build_model  # noqa: E402
from training.optim.ema import EMA  # noqa: E402
from training.optim.optimisers import make_optimiser, trainable  # noqa: E402
from training.tasks.diffusion import DiffusionTask  # noqa: E402

WAYS = {
    "align": {
        "official": OFFICIAL,
        "ours + gradients of the frozen UNet": Habits(unet_gradients=True),
        "ours + gradients of the frozen LQ encoder": Habits(encoder_gradients=True),
        "ours + the same, checkpointed": Habits(encoder_gradients=True, encoder_checkpointing=True),
        "ours + text encoders at every step": Habits(text_online=True),
    },
    "joint": {
        "official": OFFICIAL,
        "ours + LQ encoder checkpointed": Habits(encoder_checkpointing=True),
        "ours + text encoders at every step": Habits(text_online=True),
    },
}
"""Stage -> ways of stepping to hold against ours."""


class Stage:
    """A stage's networks and optimiser, which all ways of stepping share, and one batch."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(0)
        self.config = config
        self.model = build_model(config)
        self.task = DiffusionTask(config, cast(Any, None), self.model, device=torch.device("cpu"), vae=None, texts=None)
        groups = self.task.groups()
        self.parameters = trainable(groups)
        self.optimiser = make_optimiser(groups, config)
        self.ema = EMA(self.parameters, max_decay=config.ema_decay)
        self.texts = TextEncoders(TEXT_SIZES[config.network], self.model.spec)
        count, crop_px = config.batch_size, config.crop_px
        latent = (count, 4, crop_px // 8, crop_px // 8)
        self.batch = {
            "noisy": torch.randn(latent),
            "noise": torch.randn(latent),
            "lq": torch.rand(count, 3, crop_px, crop_px) * 2 - 1,
        }
        self.batch |= {"timestep": torch.randint(1000, (count,)), "time_ids": torch.full((count, 6), float(crop_px))}
        self.batch |= dict(zip(("context", "pooled"), self.texts(count), strict=True))

    def step(self, habits: Habits) -> float:
        """One optimiser step; returns its seconds of CPU time."""
        kept = {"unet": habits.unet_gradients, "lq_encoder": habits.encoder_gradients}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.parameters or kept.get(name.partition(".")[0], False))
        encoder: Any = self.model.lq_encoder
        started = time.process_time()
        with checkpointed_levels(encoder) if habits.encoder_checkpointing else nullcontext():
            batch = dict(self.batch)
            if habits.text_online:
                with self.task.autocast():
                    batch["context"], batch["pooled"] = self.texts(self.config.batch_size)
            loss, _ = self.task.loss(self.model, batch)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip_norm).item()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if habits != OFFICIAL:
            self.ema.update(self.parameters, 0)
        return time.process_time() - started


def compare(config: TrainConfig, title: str, ways: dict[str, Habits], *, rounds: int) -> list[Row]:
    """One row for each way against ours. The first round warms up and does not count."""
    stage = Stage(config)
    ours: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        ours.append(stage.step(OURS))
        for name, habits in ways.items():
            others[name].append(stage.step(habits))
    rate = config.batch_size / statistics.median(ours[1:])
    notes = f"{config.network}, {config.batch_size} x {config.crop_px} px, {config.precision}; ours {rate:.3g}/s"
    timed = {name: seconds[1:] for name, seconds in {**others, "ours": ours}.items()}
    return [compared(title, timed, name, "ours", notes=notes) for name in ways]


def config_of(network: str, stage: str, *, gradient_checkpointing: bool = False) -> TrainConfig:
    return TrainConfig(
        recipe="train-step", stage=stage, network=network, steps=1, batch_size=2 if network == "nano" else 1, lr=1e-6,
        unet_dtype="fp32" if network == "nano" else "bf16", gradient_checkpointing=gradient_checkpointing, device="cpu",
    )  # fmt: skip


def quick() -> list[Row]:
    """Both stages of the nano network: a few minutes."""
    rows: list[Row] = []
    torch.set_num_threads(1)
    for stage, title in (("align", "stage 1"), ("joint", "stage 2")):
        rows += compare(config_of("nano", stage), title, WAYS[stage], rounds=5)
        # As both need it at SDXL's size: the UNet checkpointed in both; the LQ encoder, where it trains, by blocks in ours.
        config = config_of("nano", stage, gradient_checkpointing=True)
        rows += compare(config, f"{title}, checkpointed", {"official": OFFICIAL}, rounds=5)
    return rows


def large() -> list[Row]:
    """Stage 1 of Segmind-Vega's size beside SDXL's text encoders, the UNet held in bf16: 7 GB, some 10 minutes on one core."""
    torch.set_num_threads(1)
    return compare(config_of("vega", "align"), "stage 1", WAYS["align"], rounds=2)
