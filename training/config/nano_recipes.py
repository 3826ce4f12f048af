"""The recipes of the nano model's stages, in their order; `make nano` runs them all."""

from __future__ import annotations

from dataclasses import replace

from training.config.schema import TrainConfig


def nano_vae() -> TrainConfig:
    """The nano model's autoencoder: small crops first, then the size it is used at (its group norms see the whole crop)."""
    return TrainConfig(
        recipe="nano-vae",
        stage="vae",
        steps=1600,
        batch_size=8,
        crop_px=128,
        late_crop_px=256,
        late_batch_size=2,
        late_from_frac=0.6,
        max_zoom_out=3.0,
        lr=3e-4,
        warmup_steps=50,
        adam_beta2=0.99,
        ema_decay=0.998,
        save_every=100,
        weight_decay=1e-4,
        kl_weight=5e-4,
        degradation="none",
    )


def nano_decoder() -> TrainConfig:
    """The nano VAE's decoder alone, for the latents as they are, with errors such as restored ones have, and more text."""
    return replace(
        nano_vae(),
        recipe="nano-decoder",
        stage="decoder",
        steps=600,
        batch_size=2,
        crop_px=256,
        late_crop_px=0,
        late_batch_size=0,
        late_from_frac=1.0,
        max_zoom_out=2.0,
        lr=5e-4,
        kl_weight=0.0,
        latent_noise=0.5,
    )


def nano_prior() -> TrainConfig:
    """The nano model's denoising UNet on clean latents, without alignment."""
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
    """The nano model's stage 1: alignment module only; LQ encoder (the VAE encoder's weights) and UNet frozen."""
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
    """The nano model's stage 2: LQ encoder, alignment and UNet together."""
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
        validate_every=275,
    )


def nano_levels() -> TrainConfig:
    """Stage 2 gone on with, on Levels I to III at scales 2 to 4 and with more text: what the nano model is measured on."""
    return replace(
        nano_joint(),
        recipe="nano-levels",
        steps=1000,
        noise_draws=4,
        latent_crops=1536,
        max_zoom_out=1.5,
        degradation="levels",
        degradation_scale=2,
        degradation_scale_max=4,
        validate_every=250,
    )


def nano_words() -> TrainConfig:
    """Stage 2 to its end: half of the pictures are words, and the LQ encoder learns as fast as the UNet."""
    # A tenth of the rate (the paper's) left letters sharp and wrong: their shapes have to come from the LQ encoder.
    return replace(
        nano_levels(),
        recipe="nano-words",
        steps=3000,
        latent_crops=2048,
        max_zoom_out=1.25,
        encoder_lr_ratio=1.0,
        validate_every=500,
    )


def nano_fidelity() -> TrainConfig:
    """The nano model's fidelity decoder, for its finished model and VAE."""
    return TrainConfig(
        recipe="nano-fidelity",
        stage="fidelity",
        steps=2000,
        batch_size=8,
        crop_px=128,
        restored_crops=768,
        restored_crop_px=256,
        restored_features=True,
        max_zoom_out=1.6,
        degradation="levels-heavy",
        degradation_scale=2,
        degradation_scale_max=4,
        lr=1e-3,
        warmup_steps=50,
        weight_decay=1e-4,
        adam_beta2=0.99,
        ema_decay=0.995,
        precision="fp32",  # measured on a CPU without bf16 instructions: a step takes 0.6 s, in bf16 7.4 s
        save_every=100,
        validate_every=250,
        validation_pictures=32,
    )
