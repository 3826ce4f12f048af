"""One strict schema for every run. A recipe is a function that returns a TrainConfig; `--set key=value` replaces fields of it."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

STAGES = ("vae", "prior", "align", "joint")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run; dumped beside it and into the export's metadata."""

    recipe: str
    """Name of the recipe the values came from."""
    stage: str
    """What is trained: "vae"; "prior" (UNet on clean latents); "align" (alignment only); "joint" (LQ encoder, alignment and
    UNet)."""
    network: str = "nano"
    """Name of the widths, see networks.NETWORKS."""
    seed: int = 0
    steps: int
    """Optimiser steps."""
    batch_size: int
    crop_px: int = 256
    late_crop_px: int = 0
    """Crop side from `late_from_frac` of the run on; 0 = `crop_px` throughout."""
    late_batch_size: int = 0
    """Crops a step from then on; 0 = `batch_size`."""
    late_from_frac: float = 1.0
    max_zoom_out: float = 2.0
    """A crop covers 1 to this many times its own side of the source picture (which is scaled down to fit)."""
    store_short_side_px: int = 640
    """Source pictures are scaled down to this shorter side once, when first read."""
    cache_bytes: int = 1_000_000_000
    """Decoded source pictures kept in memory, at most."""
    latent_crops: int = 0
    """prior only: crops whose VAE posterior is computed once and kept on disk; 0 = encode at every step."""
    lr: float
    encoder_lr_ratio: float = 0.1
    """LQ encoder's share of `lr` (official train_SDXL_stage_2.py:713: 5e-6 against 5e-5)."""
    warmup_steps: int = 50
    final_lr_frac: float = 0.0
    """The cosine ends at this share of `lr`."""
    weight_decay: float = 1e-2
    adam_beta2: float = 0.999
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    """Cap of the per-step decay (1 + s) / (10 + s)."""
    noise_offset: float = 0.02
    """Official train_SDXL_stage_2.py:899-902; part of the target too."""
    kl_weight: float = 1e-4
    """vae only: weight of the mean KL divergence to N(0, 1)."""
    gradient_weight: float = 0.5
    """vae only: weight of the L1 difference of horizontal and vertical differences."""
    chroma_weight: float = 1.0
    """vae only: weight of the L1 difference of colour (each channel less the mean of the three) at a quarter of the size."""
    start_crops: int = 32
    """vae only: crops that the starting weights are fitted on (vae_init); 0 = random start."""
    alignment_mode: str = "pointwise"
    """"pointwise" or "spatial", see faithdiff_core.alignment."""
    degradation: str = "mild"
    degradation_scale: int = 2
    target_size_px: int = 256
    """SDXL target size in training, and `faithdiff.target_size_px` of the export."""
    precision: str = "bf16"
    """Autocast of the networks; masters, losses, noise and EMA stay fp32."""
    threads: int = 0
    """torch threads; 0 = torch's own choice."""
    save_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        _expect(self.stage in STAGES, "stage", f"one of {', '.join(STAGES)}", self.stage)
        _expect(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}", self.precision)
        _expect(self.alignment_mode in ("pointwise", "spatial"), "alignment_mode", "pointwise or spatial", self.alignment_mode)
        for name in ("steps", "batch_size", "save_every", "log_every", "degradation_scale"):
            _expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("crop_px", "late_crop_px"):
            _expect(getattr(self, name) % 32 == 0, name, "a multiple of 32 px", getattr(self, name))
        _expect(self.crop_px > 0, "crop_px", "above 0", self.crop_px)
        _expect(self.lr > 0, "lr", "above 0", self.lr)
        _expect(self.max_zoom_out >= 1, "max_zoom_out", "at least 1", self.max_zoom_out)
        _expect(0 <= self.ema_decay < 1, "ema_decay", "0 to below 1", self.ema_decay)

    def crops_at(self, step: int) -> tuple[int, int]:
        """(crops a step, crop side px) at optimiser step `step` (from 0)."""
        if step >= self.late_from_frac * self.steps:
            return self.late_batch_size or self.batch_size, self.late_crop_px or self.crop_px
        return self.batch_size, self.crop_px


def _expect(holds: bool, name: str, wanted: str, got: object) -> None:
    if not holds:
        raise ValueError(f"expected {name} to be {wanted}, got {got}, correct the configuration")


def override(config: TrainConfig, assignments: list[str]) -> TrainConfig:
    """Apply `key=value` texts. Raises ValueError for an unknown key (naming the nearest one) or a value of the wrong type."""
    types = {field.name: type(getattr(config, field.name)) for field in fields(TrainConfig)}
    changes: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected KEY=VALUE after --set, got {text!r}, write for example --set steps=100")
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(types)}"
            raise ValueError(f"expected a known setting, got {name!r}, {hint}")
        kind = types[name]
        try:
            changes[name] = int(float(value)) if kind is int and float(value).is_integer() else kind(value)
        except ValueError as error:
            raise ValueError(f"expected {kind.__name__} for {name}, got {value!r}, correct --set {text}") from error
    return replace(config, **changes)


def to_json(config: TrainConfig) -> str:
    """The configuration as one line of JSON, keys in the order of the schema."""
    return json.dumps(asdict(config))


def from_json(text: str) -> TrainConfig:
    """Read what `to_json` wrote. Raises ValueError for keys this version does not know."""
    value = json.loads(text)
    known = {field.name for field in fields(TrainConfig)}
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(f"expected the settings of this version, got also {', '.join(unknown)}, start the run afresh")
    return TrainConfig(**value)
