"""Validation on fixed pictures with fixed draws: the loss, and restored pictures beside their input and the truth.

Whatever the step, the same picture gets the same degradation, noise and timesteps, so that values can be compared along a run and
between runs of the same settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from faithdiff_core.color_fix import fix_colors
from faithdiff_core.geometry import Box, Size
from training.batches.prompt_cache import TextCache
from training.common.images import read_image, to_unit, unit_to_u8, write_png
from training.common.seeds import generator_for
from training.config.schema import TrainConfig
from training.data.manifest import Record
from training.degradation.pipeline import degrade
from training.degradation.presets import drawn
from training.metrics.own import psnr_db, ssim
from training.model.faithdiff import FaithDiffComposite
from training.model.networks import LATENT_SCALE, decode, encode, time_ids
from training.model.noise import TRAIN_TIMESTEPS, add_noise, alphas_cumprod, draw_noise, noise_loss, sample
from training.reports.sheets import sheet

LOSS_TIMESTEPS = 8
"""Evenly spread over the schedule: 62, 187, ... 937."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One validation picture: truth and enlarged LQ (1, 3, S, S) in [0, 1], its latent in model units, and its prompt's
    embeddings.
    """

    key: str
    truth_BCHW: torch.Tensor
    lq_BCHW: torch.Tensor
    latent_BCHW: torch.Tensor
    context_BNC: torch.Tensor | None
    pooled_BC: torch.Tensor | None


class Validation:
    """The first `config.validation_pictures` readable pictures of `records`, in the order of their keys.

    `vae` is frozen and on `device`; `texts` None = no prompts.
    """

    def __init__(
        self, config: TrainConfig, records: list[Record], vae: AutoencoderKL, texts: TextCache | None, device: torch.device
    ) -> None:
        self.config = config
        self._vae = vae
        self._device = device
        self._cumprod = alphas_cumprod().to(device)
        chosen = sorted(records, key=lambda record: record.key)[: config.validation_pictures]
        self.pictures = [self._picture(record, texts) for record in chosen]

    @torch.no_grad()
    def _picture(self, record: Record, texts: TextCache | None) -> Picture:
        side_px = self.config.crop_px
        picture = to_unit(read_image(record)).to(self._device)
        generator = generator_for(self.config.seed, "validation", record.key)
        if record.lq is not None:
            small = to_unit(read_image(record.lq)).to(self._device)
            box = centre_box(Size(*small.shape[1:]), 2 * side_px // record.lq_scale)
            truth = scaled(picture, Box(*(record.lq_scale * number for number in box)), side_px, "bilinear")
            lq = scaled(small, box, side_px, "bicubic")
        else:
            truth = scaled(picture, centre_box(Size(*picture.shape[1:]), 2 * side_px), side_px, "bilinear")
            lq = truth
            if self.config.degradation != "none":
                small = degrade(truth, drawn(self.config.degradation, generator), self.config.degradation_scale, generator)
                lq = scaled(small, centre_box(Size(*small.shape[1:]), side_px), side_px, "bicubic")
        prompt = texts.get(record.caption) if texts is not None else None
        return Picture(
            key=record.key,
            truth_BCHW=truth[None],
            lq_BCHW=lq[None],
            latent_BCHW=self._encode(truth[None]),
            context_BNC=None if prompt is None else prompt[0][None].to(self._device).float(),
            pooled_BC=None if prompt is None else prompt[1][None].to(self._device).float(),
        )

    def _encode(self, unit_BCHW: torch.Tensor) -> torch.Tensor:
        return encode(self._vae, unit_BCHW * 2.0 - 1.0).float().chunk(2, dim=1)[0] * LATENT_SCALE

    @torch.no_grad()
    def run(self, model: FaithDiffComposite, step: int, folder: Path) -> dict[str, float]:
        """Mean metrics over the pictures: `loss`; with alignment also `psnr_db` and `ssim` of the restored and `lq_psnr_db`,
        `lq_ssim` of the enlarged LQ picture, and folder/step-00000500.png with a row a picture: LQ, restored, truth.
        """
        if not self.pictures:
            return {}
        training = model.training
        model.eval()
        try:
            rows = [self._measure(model, picture) for picture in self.pictures]
        finally:
            model.train(training)
        metrics = {name: sum(row[0][name] for row in rows) / len(rows) for name in rows[0][0]}
        strips = [row[1] for row in rows if row[1] is not None]
        if strips:
            write_png(folder / f"step-{step:08d}.png", sheet(strips))
        return metrics

    def _measure(self, model: FaithDiffComposite, picture: Picture) -> tuple[dict[str, float], list[torch.Tensor] | None]:
        side_px = self.config.crop_px
        ids = time_ids((side_px, side_px), (0, 0), self.config.target_size_px)[None].to(self._device)
        aligned = self.config.stage != "prior"
        features = model.encode_lq(picture.lq_BCHW * 2.0 - 1.0) if aligned else None

        def predict(x_BCHW: torch.Tensor, timestep_B: torch.Tensor) -> torch.Tensor:
            return model.predict(
                x_BCHW, timestep_B.to(self._device), ids, features, picture.context_BNC, picture.pooled_BC
            ).float()

        metrics = {"loss": self._loss(predict, picture)}
        if not aligned:
            return metrics, None
        noise = torch.randn(picture.latent_BCHW.shape, generator=generator_for(self.config.seed, "validation-start", picture.key))
        start = self._encode(picture.lq_BCHW)
        latent = sample(predict, noise.to(self._device), start, steps=self.config.validation_sampling_steps)
        restored = (decode(self._vae, latent / LATENT_SCALE).float().clamp(-1, 1) + 1.0) / 2.0
        restored = fix_colors(restored, picture.lq_BCHW, "adain")
        truth, lq, got = (x[0].cpu() for x in (picture.truth_BCHW, picture.lq_BCHW, restored))
        metrics |= {"psnr_db": psnr_db(got, truth), "ssim": ssim(got, truth)}
        metrics |= {"lq_psnr_db": psnr_db(lq, truth), "lq_ssim": ssim(lq, truth)}
        return metrics, [unit_to_u8(picture) for picture in (lq, got, truth)]

    def _loss(self, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], picture: Picture) -> float:
        generator = generator_for(self.config.seed, "validation-loss", picture.key)
        losses = []
        for index in range(LOSS_TIMESTEPS):
            timestep = torch.tensor([(2 * index + 1) * TRAIN_TIMESTEPS // (2 * LOSS_TIMESTEPS)], device=self._device)
            noise = draw_noise(tuple(picture.latent_BCHW.shape[1:]), self.config.noise_offset, generator).to(self._device)[None]
            noisy = add_noise(picture.latent_BCHW, noise, timestep, self._cumprod)
            losses.append(noise_loss(predict(noisy, timestep), noise).item())
        return sum(losses) / len(losses)


def centre_box(size: Size, side_px: int) -> Box:
    """The middle square of a picture, at most `side_px` wide."""
    side_px = min(*size, side_px)
    return Box((size.height - side_px) // 2, (size.width - side_px) // 2, side_px, side_px)


def scaled(unit_CHW: torch.Tensor, box: Box, side_px: int, mode: str) -> torch.Tensor:
    """A square part of a picture (3, H, W) at `side_px`, in [0, 1]."""
    part = unit_CHW[None, :, box.top : box.top + box.height, box.left : box.left + box.width]
    return F.interpolate(part, size=(side_px, side_px), mode=mode, antialias=True)[0].clamp(0, 1)
