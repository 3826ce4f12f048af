"""The tiny FaithDiff as a stage for the tests of the loop. Apart from trainer_toy.py, as it imports diffusers: some seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from support.trainer_toy import ToyTask
from training.common.seeds import generator_for
from training.config.schema import TrainConfig
from training.loop.task import Batch, Metrics
from training.model.faithdiff import build_model
from training.optim.optimisers import Groups
from training.tasks.diffusion import trained_groups


class ModelTask(ToyTask):
    """The tiny FaithDiff network on made-up latents and pictures; everything trains, the UNet by LoRA."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.module = build_model(config)

    def groups(self) -> Groups:
        return trained_groups(self.module, self.config)

    def batch(self, step: int, places: range) -> Batch:
        rows = []
        for place in places:
            generator = generator_for(self.config.seed, "model", step, place)
            noisy, noise = torch.randn(2, 4, 8, 8, generator=generator)
            timestep = torch.randint(1000, (), generator=generator)
            lq = torch.rand(3, 64, 64, generator=generator) * 2 - 1
            rows.append({"noisy": noisy, "noise": noise, "timestep": timestep, "ids": torch.ones(6), "lq": lq})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def loss(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        predicted = module(batch["noisy"], batch["timestep"], batch["ids"], batch["lq"])
        return (predicted - batch["noise"]).abs().mean(), {"rows": float(len(predicted))}

    @torch.no_grad()
    def validate(self, step: int, folder: Path) -> dict[str, float]:
        batch = self.batch(-1, range(1))
        features = self.module.encode_lq(batch["lq"])
        predicted = self.module.predict(batch["noisy"], batch["timestep"], batch["ids"], features)
        return {"noise": predicted.abs().mean().item()}
