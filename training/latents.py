"""A fixed number of training crops whose VAE posterior is computed once and kept on disk.

Crop number i depends on (seed, i) alone, so it can be cut again (for its LQ picture) without being stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training.config import TrainConfig
from training.crops import Crop, ImageStore, draw_crop, time_ids
from training.files import write_atomically
from training.networks import LATENT_SCALE, encode
from training.seeds import generator_for


class LatentBank:
    """posterior_NCHW: float16 (N, 8, S/8, S/8), mean and log variance of crop i, in the VAE's own units; place_N4: int64 (N, 4),
    the scaled source's H, W and the crop's top, left, px."""

    def __init__(self, config: TrainConfig, store: ImageStore, posterior_NCHW: torch.Tensor, place_N4: torch.Tensor) -> None:
        self.config = config
        self.store = store
        self.posterior_NCHW = posterior_NCHW
        self.place_N4 = place_N4

    def __len__(self) -> int:
        return len(self.posterior_NCHW)

    def crop(self, index: int) -> Crop:
        """Crop number `index`, cut again."""
        return bank_crop(self.config, self.store, index)

    def time_ids(self, index: int) -> torch.Tensor:
        """SDXL's six numbers for crop `index`, float32 (6,)."""
        height_px, width_px, top, left = self.place_N4[index].tolist()
        return time_ids((height_px, width_px), (top, left), self.config.target_size_px)

    def latent(self, index: int, generator: torch.Generator) -> torch.Tensor:
        """A sample of the posterior times SDXL's scale, float32 (4, S/8, S/8)."""
        mean, log_variance = self.posterior_NCHW[index].float().chunk(2)
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + torch.exp(0.5 * log_variance) * noise) * LATENT_SCALE


def bank_crop(config: TrainConfig, store: ImageStore, index: int) -> Crop:
    """Crop number `index`: the pictures take turns, so that each is used equally often."""
    generator = generator_for(config.seed, "bank", index)
    return draw_crop(store.get(index % len(store)), config.crop_px, config.max_zoom_out, generator)


def open_bank(
    config: TrainConfig, store: ImageStore, vae: AutoencoderKL, *, vae_digest: str, data_digest: str, folder: Path
) -> LatentBank:
    """Read the bank for these settings from `folder`, or make it (atomically) if it is not there."""
    wanted = (
        vae_digest,
        data_digest,
        config.seed,
        config.latent_crops,
        config.crop_px,
        config.max_zoom_out,
        config.store_short_side_px,
    )
    path = folder / f"latents-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}.pt"
    if path.is_file():
        held = torch.load(path, map_location="cpu", weights_only=True)
        return LatentBank(config, store, held["posterior"], held["place"])
    # In the order of the pictures, so that each is decoded once even where the store's memory is small.
    order = sorted(range(config.latent_crops), key=lambda index: (index % len(store), index))
    rows: list[torch.Tensor] = []
    place = torch.empty(len(order), 4, dtype=torch.int64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        for start in tqdm(range(0, len(order), 8), desc="latents", mininterval=2.0):
            chosen = order[start : start + 8]
            crops = [bank_crop(config, store, index) for index in chosen]
            rows.append(encode(vae, torch.stack([crop.image_CHW for crop in crops])).half())
            place[torch.tensor(chosen)] = torch.tensor([[*crop.original_HW_px, *crop.origin_YX_px] for crop in crops])
    posterior = torch.empty(len(order), *rows[0].shape[1:], dtype=torch.float16)
    posterior[torch.tensor(order)] = torch.cat(rows)
    write_atomically(path, lambda temporary: torch.save({"posterior": posterior, "place": place}, temporary))
    return LatentBank(config, store, posterior, place)
