"""Named runs. Each is a function without arguments that returns the whole configuration; its first line says what it is for.

The paper's ablations have their own file, ablations.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.config.overrides import from_json
from training.config.schema import TrainConfig


def stage1() -> TrainConfig:
    """The paper's stage 1: the alignment module alone, from an SDXL checkpoint (80 GB cards, or smaller micro-batches)."""
    # Official train_stage_1.sh and train_SDXL_stage_1.py: 16 a device x 4 accumulated x 4 devices. bf16 stands for its fp16: no
    # loss scale needed. Pictures at their own size, square crops, mirrored half of the time (official
    # Realesrgan_offline_dataset.py:183-209).
    return TrainConfig(
        recipe="stage1",
        stage="align",
        network="sdxl",
        alignment_mode="spatial",  # what the paper describes; the released code attends over the batch (its file: pointwise)
        seed=42,
        steps=6000,
        batch_size=256,
        micro_batch_size=16,
        crop_px=512,
        max_zoom_out=1.0,
        store_short_side_px=0,
        degradation="mild",
        degradation_scale=4,
        target_size_px=512,
        prompts="captions",
        prompt_dropout=0.2,
        noise_offset=0.02,
        lr=5e-5,
        warmup_steps=300,
        weight_decay=1e-2,
        adam_beta2=0.999,
        clip_norm=1.0,
        ema_decay=0.9999,  # official training_utils.py:304-313, there applied every 100 steps only
        unet_dtype="bf16",  # frozen here
        gradient_checkpointing=True,
        workers=4,
        save_every=500,
        validate_every=500,
    )


def stage2() -> TrainConfig:
    """The paper's stage 2: LQ encoder, alignment module and UNet jointly, from a stage 1 run."""
    # Official train_stage_2.sh; the LQ encoder at a tenth of the rate (train_SDXL_stage_2.py:713).
    return replace(
        stage1(), recipe="stage2", stage="joint", steps=40000, encoder_lr_ratio=0.1, unet_dtype="fp32", save_every=2000
    )


def finetune_release() -> TrainConfig:
    """Go on from the released FaithDiff.bin (pointwise attention, as it is run) on pictures of your own."""
    return replace(
        stage2(),
        recipe="finetune-release",
        alignment_mode="pointwise",
        steps=10000,
        batch_size=64,
        micro_batch_size=8,
        lr=1e-5,  # a fifth of stage 2's: the weights are near their goal
        target_size_px=1024,  # what the release passes when it restores (official test.py:130)
        save_every=500,
    )


def lora_24gb() -> TrainConfig:
    """One 24 GB card: LoRA on the UNet, LQ encoder and alignment module in full, from FaithDiff.bin or a stage 1 run."""
    return replace(
        finetune_release(),
        recipe="lora-24gb",
        steps=20000,
        batch_size=32,
        micro_batch_size=4,
        lr=5e-5,
        unet_lr_ratio=2.0,  # LoRA layers start at zero and take more: 1e-4
        lora_rank=32,
        unet_dtype="bf16",
    )


def full_24gb() -> TrainConfig:
    """One 24 GB card: the whole UNet in bf16 with 8-bit moments, each weight updated as soon as its gradient is there."""
    return replace(
        finetune_release(),
        recipe="full-24gb",
        steps=20000,
        batch_size=8,
        micro_batch_size=0,
        unet_dtype="bf16",
        optimiser="adamw8bit",
        fused_backward=True,
        ema_decay=0.0,  # an fp32 average of 2.6 billion weights takes 10 GB by itself
    )


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
        steps=4000,
        batch_size=8,
        crop_px=128,
        restored_crops=2400,
        restored_crop_px=256,
        restored_features=True,
        max_zoom_out=1.6,
        degradation="levels-heavy",
        degradation_scale=2,
        degradation_scale_max=4,
        stroke_weight=0.0,
        perceptual_weight=0.0,
        lr=1e-3,
        warmup_steps=50,
        weight_decay=1e-4,
        adam_beta2=0.99,
        ema_decay=0.995,
        precision="fp32",  # measured on a CPU without bf16 instructions: a step takes 0.6 s, in bf16 7.4 s
        save_every=100,
        validate_every=400,
        validation_pictures=32,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "stage1": stage1,
    "stage2": stage2,
    "finetune-release": finetune_release,
    "lora-24gb": lora_24gb,
    "full-24gb": full_24gb,
    "nano-vae": nano_vae,
    "nano-decoder": nano_decoder,
    "nano-prior": nano_prior,
    "nano-align": nano_align,
    "nano-joint": nano_joint,
    "nano-levels": nano_levels,
    "nano-words": nano_words,
    "nano-fidelity": nano_fidelity,
}


def recipe(name: str) -> TrainConfig:
    """The configuration called `name`, of an ablation's run (`ROW/1`), or of a JSON file.

    Raises:
        ValueError: there is none; the message names the nearest one. A JSON file as `from_json` says.
    """
    from training.config.ablations import configurations

    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"expected a recipe file, got {path}, which does not exist; check the path")
        return from_json(path.read_text(encoding="utf-8"), name)
    known = RECIPES | configurations()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
        raise ValueError(f"expected a known recipe or a .json file, got {name!r}, {hint}")
    return known[name]()
