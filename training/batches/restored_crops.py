"""Crops with what a frozen model makes of them: what a fidelity decoder learns from.

A decoder that has seen exact latents only turns the errors of restored ones into texture. So every crop is degraded and restored
by the model itself, as a user would, by one of several numbers of sampling steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from diffusers import AutoencoderKL

from training.batches.crops import cut
from training.batches.prompt_cache import TextCache, drop_prompt
from training.batches.store import ImageStore, Unreadable, others
from training.common.seeds import choose, generator_for, integer, uniform
from training.config.schema import TrainConfig
from training.degradation.pipeline import degrade
from training.degradation.presets import drawn
from training.degradation.steps import resize
from training.model.faithdiff import FaithDiffComposite
from training.model.networks import LATENT_SCALE, decode, encode, time_ids
from training.model.noise import sample

RESTORED_AT_ONCE = 8
"""Crops of one batch through the UNet. They share their number of sampling steps."""
LATENTS = {"4": 0.45, "10": 0.3, "20": 0.1, "lq": 0.1, "truth": 0.05}
"""Where the decoded latent comes from, with shares: so many sampling steps (few of the costly 20), the LQ picture's own latent,
or the truth's with a little noise: no model restores so well, but a decoder must leave alone what is right."""
TRUTH_NOISE = 0.3
"""At most, of normal noise on a latent of the truth, in model units."""
ENLARGED_BY = {"bicubic": 0.8, "bilinear": 0.2}
"""The nodes enlarge smoothly, so "nearest-exact" of `degradation.pipeline.upscale` is left out."""


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """What restores: the model and its VAE, frozen and on `device`; texts holds the prompts' embeddings, None = no prompts."""

    model: FaithDiffComposite
    vae: AutoencoderKL
    texts: TextCache | None
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class DrawnCrop:
    """One crop S px wide and all that is drawn for it."""

    hq_CHW: torch.Tensor
    """The truth, float32 (3, S, S) in [-1, 1]."""
    lq_CHW: torch.Tensor
    """The enlarged LQ picture, the same."""
    time_ids_6: torch.Tensor
    prompt: str
    noise_CHW: torch.Tensor
    """Normal, (4, S/8, S/8)."""
    truth_noise: float
    """In [0, TRUTH_NOISE]."""


class RestoredCrops:
    """The crops of a split: crop i depends on the settings, i and its picture alone; its sampling steps on i // 8."""

    def __init__(self, config: TrainConfig, store: ImageStore, frozen: FrozenModel, split: str) -> None:
        self._config = config
        self._store = store
        self._frozen = frozen
        self._split = split
        self._unreadable = Unreadable(store, config.max_unreadable_frac)
        # Mixed, so that a few crops are of all kinds of pictures: the store has them in the order of their names.
        self._order = torch.randperm(len(store), generator=generator_for(config.seed, "restored", split, "order")).tolist()

    def batch(self, indices: range) -> dict[str, torch.Tensor]:
        """hq, lq, decoded: uint8 (B, 3, S, S); features: float16 (B, C, S/8, S/8) with `restored_features`; on the CPU.

        Args:
            indices: at most 8, the first a multiple of 8.

        Raises:
            ValueError: too many pictures are unreadable, or a restoration is not finite.
        """
        assert indices.start % RESTORED_AT_ONCE == 0 and len(indices) <= RESTORED_AT_ONCE, indices
        config = self._config
        kinds = generator_for(config.seed, "restored", self._split, "latents", indices.start // RESTORED_AT_ONCE)
        kind = choose(kinds, LATENTS)
        crops = [self._draw(index) for index in indices]
        decoded_BCHW, features_BCHW = restore(self._frozen, crops, kind, precision=config.precision)
        if not (decoded_BCHW.isfinite().all() and features_BCHW.isfinite().all()):
            raise ValueError(
                f"expected finite restorations, got others in crops {indices.start} to {indices.stop - 1}, "
                "try --set precision=fp32"
            )
        hq_BCHW, lq_BCHW = (torch.stack(pictures) for pictures in zip(*((c.hq_CHW, c.lq_CHW) for c in crops), strict=True))
        made = {"hq": _u8(hq_BCHW), "lq": _u8(lq_BCHW), "decoded": _u8(decoded_BCHW)}
        return made | ({"features": features_BCHW.half().cpu()} if config.restored_features else {})

    def _draw(self, index: int) -> DrawnCrop:
        config = self._config
        generator = generator_for(config.seed, "restored", self._split, index)
        replacements = others(config.seed, len(self._store), "restored-replacement", self._split, index)
        number, pictures = self._unreadable.first_readable(chain((self._order[index % len(self._store)],), replacements))
        side_px = config.restored_side_px
        crop = cut(pictures, side_px, config.max_zoom_out, generator)
        small = crop.lq_CHW
        if small is None:
            highest = max(config.degradation_scale, config.degradation_scale_max)
            preset, scale = drawn(config.degradation, generator), integer(generator, config.degradation_scale, highest)
            small = degrade((crop.image_CHW + 1.0) / 2.0, preset, scale, generator)
        enlarged = resize(small, (side_px, side_px), choose(generator, ENLARGED_BY)).clamp(0, 1)
        caption = self._store.records[number].caption
        ids = time_ids(crop.original_HW_px, crop.origin_YX_px, config.target_size_px)
        prompt = drop_prompt(caption, config.prompt_dropout, generator)
        noise_CHW = torch.randn(4, side_px // 8, side_px // 8, generator=generator)
        return DrawnCrop(
            hq_CHW=crop.image_CHW,
            lq_CHW=enlarged * 2.0 - 1.0,
            time_ids_6=ids,
            prompt=prompt,
            noise_CHW=noise_CHW,
            truth_noise=uniform(generator, 0.0, TRUTH_NOISE),
        )


@torch.no_grad()
def restore(frozen: FrozenModel, crops: list[DrawnCrop], kind: str, *, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoded pictures, float32 (B, 3, S, S), about [-1, 1], and features of the LQ encoder (B, C, S/8, S/8), where the model is.

    Args:
        kind: where the latents come from, a key of LATENTS.
        precision: "bf16" = the networks run under autocast.
    """
    device = frozen.device
    source_BCHW = torch.stack([crop.hq_CHW if kind == "truth" else crop.lq_CHW for crop in crops]).to(device)
    lq_BCHW = torch.stack([crop.lq_CHW for crop in crops]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        features_BCHW = _one_by_one(frozen.model.encode_lq, lq_BCHW)
        start_BCHW = _one_by_one(lambda image: encode(frozen.vae, image).float().chunk(2, dim=1)[0], source_BCHW) * LATENT_SCALE
        latent_BCHW = _latents(frozen, crops, kind, start_BCHW, features_BCHW)
        decoded_BCHW = _one_by_one(lambda latent: decode(frozen.vae, latent).float(), latent_BCHW / LATENT_SCALE)
    return decoded_BCHW, features_BCHW


def _latents(
    frozen: FrozenModel, crops: list[DrawnCrop], kind: str, start_BCHW: torch.Tensor, features_BCHW: torch.Tensor
) -> torch.Tensor:
    """What is decoded, (B, 4, S/8, S/8) in model units, float32."""
    if kind == "lq":
        return start_BCHW
    device = frozen.device
    noise_BCHW = torch.stack([crop.noise_CHW for crop in crops]).to(device)
    if kind == "truth":
        strength_B = torch.tensor([crop.truth_noise for crop in crops], device=device)
        return start_BCHW + strength_B[:, None, None, None] * noise_BCHW
    ids_B6 = torch.stack([crop.time_ids_6 for crop in crops]).to(device)
    context, pooled = None, None
    if frozen.texts is not None:
        prompts = [frozen.texts.get(crop.prompt) for crop in crops]
        context, pooled = (torch.stack(values).to(device).float() for values in zip(*prompts, strict=True))

    def predict(x_BCHW: torch.Tensor, timestep_B: torch.Tensor) -> torch.Tensor:
        return frozen.model.predict(x_BCHW, timestep_B.to(device), ids_B6, features_BCHW, context, pooled)

    return sample(predict, noise_BCHW, start_BCHW, steps=int(kind))


def _one_by_one(network: Callable[[torch.Tensor], torch.Tensor], x_BCHW: torch.Tensor) -> torch.Tensor:
    """The network's result for a batch. At full size it needs its memory for one crop only."""
    return torch.cat([network(one) for one in x_BCHW.split(1)])


def _u8(signed_BCHW: torch.Tensor) -> torch.Tensor:
    return ((signed_BCHW.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
