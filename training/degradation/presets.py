"""How strong the degradation is. `mild` and `heavy` are published sets; I, II and III are this project's own ladder."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

import torch

from training.common.seeds import choose

FAMILY_WEIGHTS = {
    "iso": 0.45, "aniso": 0.25, "generalised_iso": 0.12, "generalised_aniso": 0.03, "plateau_iso": 0.12, "plateau_aniso": 0.03,
}  # fmt: skip
"""Official train_kernel.yml, both stages."""

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One round of blur, resize, noise and JPEG. Ranges are uniform, both ends included."""

    blur_prob: float
    blur_sigma_px: Range
    resize_weights: dict[str, float]
    """"up", "down", "keep"."""
    resize_range: Range
    gaussian_prob: float = 0.5
    """Else Poisson noise."""
    gaussian_sigma_u8: Range
    """In steps of 1/255."""
    poisson_scale: Range
    gray_prob: float = 0.4
    jpeg_quality: Range
    sinc_prob: float = 0.1
    generalised_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Stage A on the full size, stage B about the small size, then a final sinc filter with `final_sinc_prob`."""

    stage_a: Stage
    stage_b: Stage
    final_sinc_prob: float = 0.8


MILD = Preset(
    stage_a=Stage(
        blur_prob=1.0,
        blur_sigma_px=(0.2, 3.0),
        resize_weights={"up": 0.2, "down": 0.7, "keep": 0.1},
        resize_range=(0.3, 1.5),
        gaussian_sigma_u8=(1, 15),
        poisson_scale=(0.05, 2.0),
        jpeg_quality=(60, 95),
    ),
    stage_b=Stage(
        blur_prob=0.5,
        blur_sigma_px=(0.2, 1.5),
        resize_weights={"up": 0.3, "down": 0.4, "keep": 0.3},
        resize_range=(0.6, 1.2),
        gaussian_sigma_u8=(1, 12),
        poisson_scale=(0.05, 1.0),
        jpeg_quality=(60, 100),
    ),
)
"""Official dataloader/train_kernel.yml (never run by the released trainer)."""
HEAVY = Preset(
    stage_a=replace(
        MILD.stage_a, resize_range=(0.15, 1.5), gaussian_sigma_u8=(1, 30), poisson_scale=(0.05, 3.0), jpeg_quality=(30, 95)
    ),
    stage_b=replace(
        MILD.stage_b,
        blur_prob=0.8,
        resize_range=(0.3, 1.2),
        gaussian_sigma_u8=(1, 25),
        poisson_scale=(0.05, 2.5),
        jpeg_quality=(30, 95),
    ),
)
"""The Real-ESRGAN set."""
_KEEP = {"up": 0.0, "down": 0.0, "keep": 1.0}
_NO_STAGE = Stage(
    blur_prob=0.0,
    blur_sigma_px=(0.2, 0.2),
    resize_weights=_KEEP,
    resize_range=(1, 1),
    gaussian_prob=1.0,
    gaussian_sigma_u8=(0, 0),
    poisson_scale=(0, 0),
    jpeg_quality=(100, 100),
)
LEVEL_I = Preset(
    stage_a=replace(
        MILD.stage_a,
        blur_sigma_px=(0.2, 1.2),
        resize_weights=_KEEP,
        gaussian_sigma_u8=(1, 4),
        poisson_scale=(0.05, 0.3),
        jpeg_quality=(80, 95),
    ),
    stage_b=replace(_NO_STAGE, jpeg_quality=(85, 95)),
    final_sinc_prob=0.0,
)
"""Light: a small, slightly soft and compressed picture."""
LEVEL_II = Preset(
    stage_a=replace(
        MILD.stage_a,
        blur_sigma_px=(0.8, 2.0),
        resize_range=(0.6, 1.2),
        gaussian_sigma_u8=(4, 10),
        poisson_scale=(0.3, 1.0),
        jpeg_quality=(65, 85),
    ),
    stage_b=replace(
        MILD.stage_b, blur_sigma_px=(0.2, 1.0), gaussian_sigma_u8=(1, 6), poisson_scale=(0.05, 0.5), jpeg_quality=(65, 85)
    ),
    final_sinc_prob=0.5,
)
"""Medium: soft, noisy, visibly compressed."""
LEVEL_III = Preset(
    stage_a=replace(
        HEAVY.stage_a,
        blur_sigma_px=(1.5, 3.0),
        resize_range=(0.3, 1.2),
        gaussian_sigma_u8=(10, 25),
        poisson_scale=(1.0, 2.5),
        jpeg_quality=(40, 70),
    ),
    stage_b=replace(
        HEAVY.stage_b,
        blur_prob=1.0,
        blur_sigma_px=(0.5, 1.5),
        gaussian_sigma_u8=(5, 15),
        poisson_scale=(0.5, 1.5),
        jpeg_quality=(40, 70),
    ),
)
"""Strong, both stages always."""

MIXTURES = {"levels": ("I", "II", "III"), "levels-heavy": ("I", "II", "III", "heavy")}
"""Several presets, one of which is drawn for each picture."""
PRESETS = {"I": LEVEL_I, "II": LEVEL_II, "III": LEVEL_III, "mild": MILD, "heavy": HEAVY}


def preset(name: str) -> Preset:
    """The preset called `name`.

    Raises:
        ValueError: there is none; the message names the nearest one, or the choices.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise ValueError(f"expected a degradation level, got {name!r}, {hint}")
    return PRESETS[name]


def drawn(name: str, generator: torch.Generator) -> Preset:
    """The preset called `name`, or one drawn from the mixture of that name.

    Raises:
        ValueError: there is neither.
    """
    if name in MIXTURES:
        return preset(choose(generator, dict.fromkeys(MIXTURES[name], 1.0)))
    return preset(name)
