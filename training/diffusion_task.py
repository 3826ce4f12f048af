"""The three diffusion stages: prior (UNet on clean latents), align (alignment module alone), joint (all three)."""

from __future__ import annotations

import torch

from training.config import TrainConfig
from training.degradation.pipeline import degrade, upscale
from training.degradation.presets import preset
from training.latents import LatentBank
from training.loop import Groups
from training.model import FaithDiffModel
from training.objective import TRAIN_TIMESTEPS, add_noise, alphas_cumprod, draw_noise, noise_loss
from training.seeds import generator_for, integer


class DiffusionTask:
    """What the loop needs to know about these stages."""

    def __init__(self, config: TrainConfig, bank: LatentBank, model: FaithDiffModel) -> None:
        self.config = config
        self.bank = bank
        self.module = model
        self._cumprod = alphas_cumprod()

    def groups(self) -> Groups:
        """(name, share of the learning rate, parameters) of everything the stage trains."""
        parts = {"prior": ["unet"], "align": ["alignment"], "joint": ["lq_encoder", "alignment", "unet"]}[self.config.stage]
        groups: Groups = []
        for part in parts:
            share = self.config.encoder_lr_ratio if part == "lq_encoder" else 1.0
            members = {name: value for name, value in self.module.named_parameters() if name.startswith(part + ".")}
            groups.append((part, share, members))
        return groups

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """noisy and noise (B, 4, h, w), timestep (B,), time_ids (B, 6) and, with alignment, lq (B, 3, H, W) in [-1, 1]."""
        rows = [self._sample(step, sample) for sample in range(self.config.crops_at(step)[0])]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _sample(self, step: int, sample: int) -> dict[str, torch.Tensor]:
        generator = generator_for(self.config.seed, self.config.stage, step, sample)
        index = integer(generator, 0, len(self.bank) - 1)
        latent = self.bank.latent(index, generator)
        noise = draw_noise(tuple(latent.shape), self.config.noise_offset, generator)
        timestep = torch.tensor(integer(generator, 0, TRAIN_TIMESTEPS - 1))
        noisy = add_noise(latent[None], noise[None], timestep[None], self._cumprod)[0]
        row = {"noisy": noisy, "noise": noise, "timestep": timestep, "time_ids": self.bank.time_ids(index)}
        if self.config.stage != "prior":
            row["lq"] = self.lq_picture(self.bank.crop(index).image_CHW, generator)
        return row

    def lq_picture(self, image_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Degrade float32 (3, H, W) in [-1, 1] and bring it back to its size."""
        unit = (image_CHW + 1.0) / 2.0
        small = degrade(unit, preset(self.config.degradation), self.config.degradation_scale, generator)
        return upscale(small, (int(unit.shape[1]), int(unit.shape[2])), generator) * 2.0 - 1.0

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """L1 on the noise; the networks under autocast, the loss in fp32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            predicted = self.module(batch["noisy"], batch["timestep"], batch["time_ids"], batch.get("lq"))
        return noise_loss(predicted, batch["noise"]), {}
