"""The three diffusion stages: prior (UNet on clean latents), align (alignment module alone), joint (the paper's stage 2)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training.batches.prompt_cache import TextCache, drop_prompt
from training.batches.samples import Sample, SampleSource
from training.common.seeds import integer
from training.config.schema import TrainConfig
from training.degradation.pipeline import degrade, upscale
from training.degradation.presets import drawn
from training.model.faithdiff import FaithDiffComposite
from training.model.lora import has_lora, lora_parameters
from training.model.networks import LATENT_SCALE, encode
from training.model.noise import TRAIN_TIMESTEPS, add_noise, alphas_cumprod, draw_noise, noise_loss
from training.optim.optimisers import Groups
from training.tasks.validation import Validation

DRAWN = ("noisy", "noise", "timestep")
"""What a batch has several of for each crop, with `noise_draws` above 1."""


class DiffusionTask:
    """What the loop needs to know about these stages.

    `vae` (frozen, on `device`) encodes crops that the source has no posterior for; `texts` holds the prompts' embeddings (None =
    no prompts).
    """

    def __init__(
        self, config: TrainConfig, source: SampleSource, model: FaithDiffComposite, *, device: torch.device, vae: AutoencoderKL |
        None, texts: TextCache | None, validation: Validation | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.source = source
        self.module = model
        self.device = device
        self._vae = vae
        self._texts = texts
        self._validation = validation
        self._cumprod = alphas_cumprod().to(device)

    def groups(self) -> Groups:
        """(name, scale of the learning rate, parameters) of everything the stage trains."""
        return trained_groups(self.module, self.config)

    def prefetch(self, step: int, indices: range) -> None:
        """Read these pictures ahead."""
        self.source.prefetch(step, indices)

    def batch(self, step: int, indices: range) -> dict[str, torch.Tensor]:
        """Noisy and noise (B D, 4, h, w), timestep (B D,) with D = config.noise_draws, a crop's draws together; time_ids (B, 6);
        with alignment lq (B, 3, H, W) in [-1, 1]; with prompts context (B, 77, C) and pooled (B, C). All on the task's device,
        float32.

        Every draw comes from the sample's own generator, in one order, whatever else is in the batch.
        """
        samples = self.source.samples(step, indices)
        rows = [self._row(sample, posterior) for sample, posterior in zip(samples, self._posteriors(samples), strict=True)]
        joined = {name: torch.cat([row[name] for row in rows]) for name in DRAWN}
        return joined | {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name not in DRAWN}

    @torch.no_grad()
    def _posteriors(self, samples: list[Sample]) -> list[torch.Tensor]:
        """Mean and log variance (8, h, w) of each sample's crop, float32 on the device."""
        held = [sample.posterior_CHW for sample in samples]
        if all(posterior is not None for posterior in held):
            return [posterior.to(self.device).float() for posterior in held if posterior is not None]
        assert self._vae is not None, "crops without posterior need the VAE"
        images = torch.stack([sample.image_CHW for sample in samples]).to(self.device)
        with self.autocast():
            return list(encode(self._vae, images).float())

    @torch.no_grad()
    def _row(self, sample: Sample, posterior_CHW: torch.Tensor) -> dict[str, torch.Tensor]:
        generator = sample.generator
        mean, log_variance = posterior_CHW.chunk(2)
        log_variance = log_variance.clamp(-30.0, 20.0)  # as diffusers' DiagonalGaussianDistribution does
        posterior_noise = torch.randn(mean.shape, generator=generator).to(self.device)
        latent = (mean + torch.exp(0.5 * log_variance) * posterior_noise) * LATENT_SCALE
        noises, timesteps = [], []
        for _ in range(self.config.noise_draws):
            noises.append(draw_noise(tuple(latent.shape), self.config.noise_offset, generator))
            timesteps.append(integer(generator, 0, TRAIN_TIMESTEPS - 1))
        noise, timestep = torch.stack(noises).to(self.device), torch.tensor(timesteps, device=self.device)
        prompt = drop_prompt(sample.caption, self.config.prompt_dropout, generator)
        noisy = add_noise(latent[None], noise, timestep, self._cumprod)
        row = {"noisy": noisy, "noise": noise, "timestep": timestep, "time_ids": sample.time_ids_6.to(self.device)}
        if self._texts is not None:
            context, pooled = self._texts.get(prompt)
            row |= {"context": context.to(self.device).float(), "pooled": pooled.to(self.device).float()}
        if self.config.stage != "prior":
            row["lq"] = self._lq_picture(sample)
        return row

    def _lq_picture(self, sample: Sample) -> torch.Tensor:
        """The sample's LQ picture, or its crop degraded, brought back to the crop's size: float32 (3, S, S) in [-1, 1]."""
        size = (int(sample.image_CHW.shape[1]), int(sample.image_CHW.shape[2]))
        if sample.lq_CHW is not None:
            small = sample.lq_CHW.to(self.device)
        else:
            unit = (sample.image_CHW.to(self.device) + 1.0) / 2.0
            if self.config.degradation == "none":
                raise ValueError(
                    f"expected a degradation for {sample.key!r}, which has no LQ picture, got none, add --set degradation=mild"
                )
            small = degrade(unit, drawn(self.config.degradation, sample.generator), self._scale(sample), sample.generator)
        return upscale(small, size, sample.generator) * 2.0 - 1.0

    def _scale(self, sample: Sample) -> int:
        low, high = self.config.degradation_scale, self.config.degradation_scale_max
        return integer(sample.generator, low, high) if high > low else low

    def autocast(self) -> torch.autocast:
        """The networks' precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def loss(
        self, module: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        """L1 on the noise (paper, section 3); the networks under autocast, the loss in fp32."""
        with self.autocast():
            predicted = module(
                batch["noisy"], batch["timestep"], batch["time_ids"], batch.get("lq"), batch.get("context"), batch.get("pooled")
            )
        return noise_loss(predicted, batch["noise"]), {}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Restore the validation pictures with the weights as they are; see Validation.run."""
        if self._validation is None:
            return {}
        with self.autocast():
            return self._validation.run(self.module, step, folder)


def trained_groups(model: torch.nn.Module, config: TrainConfig) -> Groups:
    """One group per part of `config.parts`: a submodule of that name; with LoRA, of the UNet its LoRA parameters alone."""
    shares = {"lq_encoder": config.encoder_lr_ratio, "unet": config.unet_lr_ratio}
    groups: Groups = []
    for part in config.parts:
        candidates = lora_parameters(model) if part == "unet" and has_lora(config) else dict(model.named_parameters())
        members = {name: parameter for name, parameter in candidates.items() if name.startswith(part + ".")}
        assert members, f"no parameters in {part}"
        groups.append((part, shares.get(part, 1.0), members))
    return groups
