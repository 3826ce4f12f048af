"""What the settings of a run must be, each by itself and several together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.config.schema import TrainConfig


def check(config: TrainConfig, *, choices: Mapping[str, tuple[str, ...]], parts: tuple[str, ...]) -> None:
    """Raise ValueError naming the first setting that cannot be.

    Args:
        choices: settings that take one of a few texts.
        parts: what `trains` may name.
    """
    for name, value in vars(config).items():
        _expect(not isinstance(value, float) or math.isfinite(value), name, "a finite number", value)
    for name, allowed in choices.items():
        _expect(getattr(config, name) in allowed, name, f"one of {', '.join(allowed)}", getattr(config, name))
    for part in filter(None, config.trains.split(",")):
        _expect(part in parts, "trains", f"parts of {', '.join(parts)}, separated by commas", config.trains)
    for name in ("steps", "batch_size", "save_every", "keep_checkpoints", "log_every", "degradation_scale", "noise_draws"):
        _expect(getattr(config, name) >= 1, name, "at least 1", getattr(config, name))
    for name in ("micro_batch_size", "workers", "validate_every", "lora_rank", "latent_crops", "clip_norm", "warmup_steps"):
        _expect(getattr(config, name) >= 0, name, "at least 0", getattr(config, name))
    for name in ("crop_px", "late_crop_px", "restored_crop_px"):
        _expect(getattr(config, name) % 32 == 0, name, "a multiple of 32 px", getattr(config, name))
    _expect(config.crop_px > 0, "crop_px", "above 0", config.crop_px)
    _expect(config.lr > 0, "lr", "above 0", config.lr)
    _expect(config.max_zoom_out >= 1, "max_zoom_out", "at least 1", config.max_zoom_out)
    for name in ("stroke_weight", "perceptual_weight", "adversarial_weight"):
        _expect(getattr(config, name) >= 0, name, "at least 0", getattr(config, name))
    if config.stage == "fidelity":
        _check_fidelity(config)
    for name in ("ema_decay", "adam_beta2"):
        _expect(0 <= getattr(config, name) < 1, name, "0 to below 1", getattr(config, name))
    for name in ("prompt_dropout", "late_from_frac", "max_unreadable_frac", "adversarial_from_frac"):
        _expect(0 <= getattr(config, name) <= 1, name, "0 to 1", getattr(config, name))
    if config.fused_backward:
        _expect(
            config.micro_batch_size in (0, config.batch_size),
            "micro_batch_size",
            "0 with fused_backward",
            config.micro_batch_size,
        )


def _check_fidelity(config: TrainConfig) -> None:
    _expect(config.restored_crops >= 1, "restored_crops", "at least 1 in stage fidelity", config.restored_crops)
    side_px, largest_px = config.restored_side_px, max(config.crop_px, config.late_crop_px)
    _expect(side_px >= largest_px, "restored_crop_px", f"0 or at least crop_px, {largest_px}", side_px)
    _expect(not config.trains, "trains", "empty in stage fidelity", config.trains)
    _expect(config.lq_features == "penultimate", "lq_features", "penultimate in stage fidelity", config.lq_features)
    # Weights that are replaced in the backward pass cannot be those that the decoder's part of it still looks at.
    _expect(not (config.fused_backward and config.adversarial_weight), "fused_backward", "false with adversarial_weight", True)
    _expect(config.degradation != "none", "degradation", "a preset or a mixture in stage fidelity", config.degradation)


def _expect(holds: bool, name: str, wanted: str, got: object) -> None:
    if not holds:
        raise ValueError(f"expected {name} to be {wanted}, got {got!s:.60}, correct the configuration")
