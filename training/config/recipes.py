"""Named runs. Each is a function without arguments that returns the whole configuration; its first line says what it is for.

The nano model's have their own file, nano_recipes.py, and the paper's ablations theirs, ablations.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.config import nano_recipes
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


def fidelity_decoder() -> TrainConfig:
    """The fidelity decoder of a finished FaithDiff at SDXL's size, on one 24 GB card, from FaithDiff.bin or a run of yours."""
    # Never run at this size. The objective, the mixture of levels and the optimiser are nano-fidelity's.
    return replace(
        nano_recipes.nano_fidelity(),
        recipe="fidelity-decoder",
        network="sdxl",
        alignment_mode="pointwise",  # as the released weights are run
        seed=42,
        steps=20000,
        batch_size=16,
        micro_batch_size=8,
        crop_px=512,
        restored_crops=4096,
        restored_crop_px=768,  # 5.3 MB a crop on disk; each step cuts other windows of 512 px from them
        restored_features=False,  # 9.4 MB more a crop, and no crop could be mirrored
        max_zoom_out=1.5,
        store_short_side_px=0,
        target_size_px=1024,  # what the release passes when it restores (official test.py:130)
        prompts="captions",
        prompt_dropout=0.2,
        warmup_steps=300,
        ema_decay=0.999,
        precision="bf16",
        unet_dtype="bf16",  # frozen
        workers=4,
        save_every=500,
        validate_every=1000,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "stage1": stage1,
    "stage2": stage2,
    "finetune-release": finetune_release,
    "lora-24gb": lora_24gb,
    "full-24gb": full_24gb,
    "fidelity-decoder": fidelity_decoder,
    "nano-vae": nano_recipes.nano_vae,
    "nano-decoder": nano_recipes.nano_decoder,
    "nano-prior": nano_recipes.nano_prior,
    "nano-align": nano_recipes.nano_align,
    "nano-joint": nano_recipes.nano_joint,
    "nano-levels": nano_recipes.nano_levels,
    "nano-words": nano_recipes.nano_words,
    "nano-fidelity": nano_recipes.nano_fidelity,
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
