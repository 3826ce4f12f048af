"""Named runs. Each is a function without arguments that returns the whole configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from training.config import TrainConfig


def nano_vae() -> TrainConfig:
    """The nano model's autoencoder: small crops first, then the size it is used at (its group norms see the whole crop)."""
    return TrainConfig(
        recipe="nano-vae",
        stage="vae",
        steps=520,
        batch_size=8,
        crop_px=128,
        late_crop_px=256,
        late_batch_size=2,
        late_from_frac=0.6,
        max_zoom_out=3.0,
        lr=1.5e-4,
        warmup_steps=50,
        adam_beta2=0.99,
        ema_decay=0.995,
        save_every=100,
        weight_decay=1e-4,
        kl_weight=5e-4,
        degradation="none",
    )


def nano_prior() -> TrainConfig:
    """Denoising UNet on clean latents, without alignment."""
    return TrainConfig(
        recipe="nano-prior",
        stage="prior",
        steps=600,
        batch_size=8,
        latent_crops=1024,
        lr=8e-4,
        warmup_steps=50,
        adam_beta2=0.99,
        ema_decay=0.995,
        save_every=100,
        degradation="none",
    )


def nano_align() -> TrainConfig:
    """Alignment module only; LQ encoder (the VAE encoder's weights) and UNet frozen."""
    return TrainConfig(
        recipe="nano-align",
        stage="align",
        steps=150,
        batch_size=4,
        latent_crops=1024,
        lr=1e-3,
        warmup_steps=20,
        adam_beta2=0.99,
        ema_decay=0.99,
        save_every=50,
    )


def nano_joint() -> TrainConfig:
    """LQ encoder, alignment and UNet together."""
    return TrainConfig(
        recipe="nano-joint",
        stage="joint",
        steps=1100,
        batch_size=4,
        latent_crops=1024,
        lr=5e-4,
        warmup_steps=50,
        adam_beta2=0.99,
        ema_decay=0.995,
        save_every=100,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "nano-vae": nano_vae,
    "nano-prior": nano_prior,
    "nano-align": nano_align,
    "nano-joint": nano_joint,
}


def recipe(name: str) -> TrainConfig:
    """The configuration called `name`. Raises ValueError naming the nearest recipe."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(RECIPES)}"
        raise ValueError(f"expected a known recipe, got {name!r}, {hint}")
    return RECIPES[name]()
