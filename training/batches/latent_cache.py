"""A fixed number of training crops whose VAE posterior is computed once and kept on disk.

Crop number i depends on (seed, i) and its picture alone, so it can be cut again (for its LQ picture) without being stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from training.batches.crops import Crop, cut
from training.batches.store import ImageStore, Pictures, Unreadable, others
from training.common.devices import warn
from training.common.seeds import generator_for
from training.common.tensor_files import read_archive, write_archive
from training.config.schema import TrainConfig
from training.model.networks import encode

FORMAT = 2
ENCODED_AT_ONCE = 8


class LatentCache:
    """posterior_NCHW: float16 (N, 8, S/8, S/8), mean and log variance of crop i, in the VAE's own units; record_N: int64, the
    place in the store of the picture that crop i was cut from.
    """

    def __init__(self, config: TrainConfig, posterior_NCHW: torch.Tensor, record_N: torch.Tensor) -> None:
        self.config = config
        self.posterior_NCHW = posterior_NCHW
        self.record_N = record_N

    def __len__(self) -> int:
        return len(self.posterior_NCHW)

    def record(self, index: int) -> int:
        """The place in the store of crop `index`'s picture."""
        return int(self.record_N[index])

    def crop(self, index: int, pictures: Pictures) -> Crop:
        """Crop number `index`, cut again from its picture."""
        return _cut(self.config, pictures, index)


def cached_crop(config: TrainConfig, store: ImageStore, index: int) -> Crop:
    """Crop number `index` of a cache without unreadable pictures: the pictures take turns, so that each is used equally often."""
    return _cut(config, store.pictures(index % len(store)), index)


def _cut(config: TrainConfig, pictures: Pictures, index: int) -> Crop:
    return cut(pictures, config.crop_px, config.max_zoom_out, generator_for(config.seed, "bank", index))


def open_latent_cache(
    config: TrainConfig, store: ImageStore, vae: AutoencoderKL, *, vae_digest: str, data_digest: str, folder: Path,
    device: torch.device | None = None,
) -> LatentCache:  # fmt: skip
    """Read the cache for these settings from `folder`, or make it (atomically) if it is not there or damaged.

    `vae` must be on `device` (None = the CPU). Of several processes let the main one come first; it finds work, the others a
    file.

    Raises:
        ValueError: the crops change their size during the run, or too many pictures are unreadable.
    """
    if config.late_crop_px not in (0, config.crop_px):
        raise ValueError(
            f"expected late_crop_px 0 with latent_crops, got {config.late_crop_px}, add --set late_crop_px=0 or latent_crops=0"
        )
    wanted = (
        FORMAT, vae_digest, data_digest, config.seed, config.latent_crops, config.crop_px, config.max_zoom_out,
        config.store_short_side_px, config.precision,
    )  # fmt: skip
    path = folder / f"latents-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}.pt"
    try:
        # Mapped: several processes of one machine share the memory.
        held = read_archive(path)
        return LatentCache(config, held["posterior"], held["record"])
    except FileNotFoundError:
        pass
    except (KeyError, TypeError, ValueError) as error:
        warn(f"{path} is damaged ({error}), it is made again")
    posterior, record = _encode_all(config, store, vae, device or torch.device("cpu"))
    write_archive(path, {"posterior": posterior, "record": record})
    return LatentCache(config, posterior, record)


@torch.no_grad()
def _encode_all(
    config: TrainConfig, store: ImageStore, vae: AutoencoderKL, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior and record of every crop. The crops of an unreadable picture are cut from others instead."""
    # In the order of the pictures, so that each is decoded once even where the store's memory is small.
    order = sorted(range(config.latent_crops), key=lambda index: (index % len(store), index))
    unreadable = Unreadable(store, config.max_unreadable_frac)
    posterior, record = torch.empty(0), torch.empty(len(order), dtype=torch.int64)
    for start in tqdm(range(0, len(order), ENCODED_AT_ONCE), desc="latents", mininterval=2.0):
        crops = []
        for index in order[start : start + ENCODED_AT_ONCE]:
            record[index], pictures = unreadable.first_readable(_candidates(config.seed, index, len(store)))
            crops.append(_cut(config, pictures, index).image_CHW)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            encoded = encode(vae, torch.stack(crops).to(device)).half().cpu()
        if not start:
            posterior = torch.empty(len(order), *encoded.shape[1:], dtype=torch.float16)
        posterior[torch.tensor(order[start : start + ENCODED_AT_ONCE])] = encoded
    return posterior, record


def _candidates(seed: int, index: int, count: int) -> Iterator[int]:
    """The picture whose turn it is at crop `index`, then others to take instead."""
    yield index % count
    yield from others(seed, count, "bank-replacement", index)
