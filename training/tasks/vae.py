"""Training of the small autoencoder, or of its decoder alone: L1 at three scales, L1 of differences and of colour, and a little
KL.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from training.batches.crops import draw_crop
from training.batches.store import ImageStore, Unreadable, others
from training.common.devices import device_of
from training.common.seeds import generator_for, integer, seed_for, uniform
from training.config.schema import TrainConfig
from training.loop.task import Batch, Metrics
from training.model.networks import LATENT_SCALE, build_vae, network_spec
from training.model.vae_start import start_with_colour
from training.optim.optimisers import Groups

GRADIENT_WEIGHT = 0.5
"""Of the differences of neighbours in the loss, beside 1 for the pixels. The nano VAE's value, never varied."""
START_CROPS = 32
"""Crops that the starting weights of stage vae are fitted on (vae_start.py)."""


def build_vae_module(config: TrainConfig) -> AutoencoderKL:
    """The autoencoder with seeded initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, "vae-init"))
        return build_vae(network_spec(config.network))


class RoundTrip(nn.Module):
    """An AutoencoderKL's parts behind one forward. They keep their names: this module's state dict is the autoencoder's."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        parts: Any = vae
        self.encoder: nn.Module = parts.encoder
        self.quant_conv: nn.Module = parts.quant_conv
        self.post_quant_conv: nn.Module = parts.post_quant_conv
        self.decoder: nn.Module = parts.decoder

    def forward(
        self, image_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, error_BCHW: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, 3, H, W) in [-1, 1] and normal noise (B, 4, H/8, W/8) -> the posterior's mean and log variance, each of the
        noise's shape, and the decoded sample (B, 3, H, W), all float32. `error_BCHW` is added to the latent.
        """
        frozen = not any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            mean, log_variance = self.quant_conv(self.encoder(image_BCHW)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30.0, 20.0)  # as diffusers' DiagonalGaussianDistribution does
        latent = mean + torch.exp(0.5 * log_variance) * noise_BCHW
        if error_BCHW is not None:
            latent = latent + error_BCHW
        return mean, log_variance, self.decoder(self.post_quant_conv(latent)).float()


def differences(x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertical and horizontal first differences."""
    return x_BCHW[:, :, 1:] - x_BCHW[:, :, :-1], x_BCHW[:, :, :, 1:] - x_BCHW[:, :, :, :-1]


def chroma(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Each colour channel less the mean of the three: what is left is colour without brightness."""
    return x_BCHW - x_BCHW.mean(1, keepdim=True)


def reconstruction_loss(got_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean L1 over the scales 1, 1/2 and 1/4, plus L1 of first differences (by GRADIENT_WEIGHT), and of colour at 1/4."""
    loss = got_BCHW.new_zeros(())
    for scale in (1, 2, 4):
        difference = F.avg_pool2d(got_BCHW - wanted_BCHW, scale) if scale > 1 else got_BCHW - wanted_BCHW
        loss = loss + difference.abs().mean() / 3
    colour = F.avg_pool2d(chroma(got_BCHW - wanted_BCHW), 4).abs().mean()
    vertical, horizontal = differences(got_BCHW - wanted_BCHW)
    edges = (vertical.abs().mean() + horizontal.abs().mean()) / 2
    return loss + GRADIENT_WEIGHT * edges + colour


class VAETask:
    """What the loop needs to know about these stages. `start`: the VAE whose decoder stage `decoder` goes on with."""

    def __init__(self, config: TrainConfig, store: ImageStore, start: AutoencoderKL | None = None) -> None:
        self.config = config
        self.store = store
        self._unreadable = Unreadable(store, config.max_unreadable_frac)
        self.device = device_of(config.device)
        vae = start or build_vae_module(config)
        if start is None:
            start_with_colour(vae, torch.stack([self._start_crop(index) for index in range(START_CROPS)]))
        self.module = RoundTrip(vae)

    def _start_crop(self, index: int) -> torch.Tensor:
        return self._crop(generator_for(self.config.seed, "vae-start", index), self.config.crop_px)

    def _crop(self, generator: torch.Generator, crop_px: int) -> torch.Tensor:
        """A crop of the picture that the generator draws; an unreadable one is replaced.

        Raises:
            ValueError: when too many have turned unreadable.
        """
        seed = generator.initial_seed()
        items = chain((integer(generator, 0, len(self.store) - 1),), others(seed, len(self.store), "vae-replacement"))
        _, pictures = self._unreadable.first_readable(items)
        return draw_crop(pictures.image_u8, crop_px, self.config.max_zoom_out, generator).image_CHW

    def groups(self) -> Groups:
        """(name, scale of the learning rate, parameters) of everything trained."""
        members = dict(self.module.named_parameters())
        if self.config.stage == "decoder":
            members = {name: value for name, value in members.items() if name.startswith(("decoder.", "post_quant_conv."))}
        return [(self.config.stage, 1.0, members)]

    def prefetch(self, step: int, indices: range) -> None:
        """Nothing: the store keeps its few pictures in memory."""

    def batch(self, step: int, indices: range) -> Batch:
        """Image (B, 3, S, S) in [-1, 1] and noise (B, 4, S/8, S/8) of the posterior; with `latent_noise` also error, of noise's
        shape, in the VAE's own units.
        """
        _, crop_px = self.config.crops_at(step)
        images, noises, errors = [], [], []
        for index in indices:
            generator = generator_for(self.config.seed, "vae", step, index)
            images.append(self._crop(generator, crop_px))
            noises.append(torch.randn(4, crop_px // 8, crop_px // 8, generator=generator))
            if self.config.latent_noise:
                strength = uniform(generator, 0.0, self.config.latent_noise) / LATENT_SCALE
                errors.append(strength * torch.randn(4, crop_px // 8, crop_px // 8, generator=generator))
        batch = {"image": images, "noise": noises} | ({"error": errors} if errors else {})
        return {name: torch.stack(values).to(self.device) for name, values in batch.items()}

    def loss(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """Loss and metrics to log. Networks under autocast, losses in fp32."""
        image = batch["image"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            mean, log_variance, got = module(image, batch["noise"], batch.get("error"))
        reconstruction = reconstruction_loss(got, image)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        with torch.no_grad():
            mse = (got.clamp(-1, 1) - image).square().mean((1, 2, 3)) / 4
            metrics: Metrics = {
                "psnr_db": (-10 * torch.log10(mse + 1e-10)).mean(),
                "kl": kl,
                "latent_std": mean.std(),
                "chroma_l1": chroma(got - image).abs().mean(),
            }
        return reconstruction + self.config.kl_weight * kl, metrics

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """Nothing: `reconstruct` shows an exported VAE's pictures."""
        return {}
