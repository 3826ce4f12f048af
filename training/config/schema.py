"""One strict schema for every run. A recipe is a function (recipes.py) or a JSON file of these settings; `--set key=value`
replaces fields of it (overrides.py).
What no recipe sets is of the machine, or of what is kept and reported: device, precision, threads, memory, checkpoints, log.

Not pydantic or tyro: most checks are of numbers and of several settings together, and would be written out there, too; the
messages ("expected X, got Y, do Z", the nearest name) would have to be made of theirs; and pydantic would be one package more.

"Batch" always means all crops of one optimiser step, whatever the number of processes: learning rate, schedule and random draws
are counted by optimiser steps and by a sample's index in that batch, so nothing depends on how many devices share the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.config.checks import check

Stage = Literal["vae", "decoder", "prior", "align", "joint", "fidelity"]
Held = Literal["fp32", "bf16"]
PARTS_OF_STAGE: dict[Stage, tuple[str, ...]] = {
    "vae": ("vae",),
    "decoder": ("decoder",),
    "prior": ("unet",),
    "align": ("alignment",),
    "joint": ("lq_encoder", "alignment", "unet"),
    "fidelity": ("fidelity_decoder",),
}
"""What each stage trains: the VAE, then its decoder again for the same latents (nano only), the UNet on clean latents (nano
only), the paper's stage 1, the paper's stage 2, and a fidelity decoder for a finished model."""
VAE_STAGES = ("vae", "decoder")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run; dumped beside it and into the export's metadata."""

    # What is trained
    recipe: str
    """Name of the recipe the values came from."""
    stage: Stage
    trains: str = ""
    """Parts that train, separated by commas, of unet, lq_encoder and alignment; empty = the stage's own (the paper's Table 6
    trains others)."""
    network: str = "nano"
    """Name of the widths, see networks.NETWORKS."""
    alignment_mode: Literal["pointwise", "spatial"] = "pointwise"
    """See faithdiff_core.alignment."""
    alignment_layers: int = -1
    """Transformer blocks of the alignment module; -1 = the network's own (2), 0 = none: features are only embedded and added
    through the linear layer (the paper's Table 5, without alignment)."""
    lq_features: Literal["penultimate", "last"] = "penultimate"
    """"penultimate" = the LQ encoder cut before its head; "last" = with its head, 8 channels (the paper's Table 5)."""
    lora_rank: int = 0
    """Above 0 the UNet's own weights stay frozen and LoRA layers of this rank train in their place."""

    # Length and batch
    seed: int = 0
    steps: int
    """Optimiser steps."""
    batch_size: int
    """Crops of one optimiser step, over all processes and micro-batches."""
    micro_batch_size: int = 0
    """Crops that one device holds at a time; 0 = its whole share of the batch. Smaller ones are accumulated."""
    crop_px: int = 256
    late_crop_px: int = 0
    """Crop side from `late_from_frac` of the run on; 0 = `crop_px` throughout."""
    late_batch_size: int = 0
    """Crops a step from then on; 0 = `batch_size`."""
    late_from_frac: float = 1.0

    # Pictures
    max_zoom_out: float = 2.0
    """A crop covers 1 to this many times its own side of the source picture (which is scaled down to fit)."""
    store_short_side_px: int = 640
    """Source pictures are scaled down to this shorter side when read; 0 = left as they are."""
    cache_bytes: int = 1_000_000_000
    """Decoded source pictures kept in memory, at most, a process."""
    latent_crops: int = 0
    """Diffusion stages: so many fixed crops, whose VAE posterior is computed once and kept on disk; 0 = new crops at every step,
    encoded then."""
    workers: int = 2
    """Threads that read and cut pictures ahead of the step; 0 = none. No result depends on it."""
    max_unreadable_frac: float = 0.01
    """The run stops when more than this share of the pictures has turned unreadable since `prepare`."""
    degradation: str = "mild"
    """A preset of degradation/presets.py, or a mixture of which each crop draws one: "levels" (I, II, III), "levels-heavy".
    Pairs in the manifest use their LQ picture instead."""
    degradation_scale: int = 2
    degradation_scale_max: int = 0
    """Above `degradation_scale`: each crop draws a whole scale between the two."""
    target_size_px: int = 256
    """SDXL target size in training, and `faithdiff.target_size_px` of the export."""

    # Prompts
    prompts: Literal["none", "captions"] = "none"
    """"none" = zeros in place of both embeddings; "captions" = the manifest's captions through SDXL's two text encoders,
    cached."""
    prompt_dropout: float = 0.2
    """Share of the samples whose caption is replaced by "" (official train_SDXL_stage_2.py:748)."""

    # Objective
    noise_draws: int = 1
    """Timesteps and noises drawn for each crop of a step. Its LQ picture is encoded once for all of them: with the nano network
    at 256 px on a CPU the LQ encoder takes 2.6 times the UNet's time (measured)."""
    noise_offset: float = 0.02
    """Official train_SDXL_stage_2.py:899-902; part of the target too."""
    kl_weight: float = 1e-4
    """vae only: weight of the mean KL divergence to N(0, 1)."""
    latent_noise: float = 0.0
    """decoder only: each crop's latent gets normal noise of a strength drawn from 0 to this, in model units (a latent's own
    standard deviation is 1). Restored latents are never exact, and a decoder that saw exact ones only turns errors into
    texture."""

    # Fidelity decoder
    restored_crops: int = 0
    """So many fixed crops, restored once by the frozen model and kept on disk; steps cut theirs from them."""
    restored_crop_px: int = 0
    """Their side; 0 = `crop_px`."""
    restored_features: bool = False
    """Keep the LQ encoder's features of these crops, too; else each step computes its own (and half of its crops are mirrored,
    which features kept cannot be)."""
    stroke_weight: float = 0.0
    """Above 0, pixels count more in the error the further they are from their surroundings, as thin strokes are: by 1 + this much
    where that distance is the crop's mean."""
    perceptual_weight: float = 0.0
    """Of the perceptual distance beside the pixels' error, see metrics/perceptual.py."""
    adversarial_weight: float = 0.0
    """Of what a discriminator thinks of the picture; above 0 there is one, which trains along from the first step."""
    adversarial_from_frac: float = 0.5
    """The decoder hears it from here on, a share of the run: first the pixels have to be right."""

    # Optimiser
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """"adamw", or "adamw8bit" (torchao: 8-bit moments, stochastic rounding into bf16 weights)."""
    fused_backward: bool = False
    """Update each parameter as soon as its gradient is there and free it. Gradients are then clipped a parameter at a time, and
    the batch cannot be accumulated."""
    lr: float
    encoder_lr_ratio: float = 0.1
    """LQ encoder's share of `lr` (official train_SDXL_stage_2.py:713: 5e-6 against 5e-5)."""
    unet_lr_ratio: float = 1.0
    """UNet's (or its LoRA's) share of `lr`."""
    warmup_steps: int = 50
    weight_decay: float = 1e-2
    adam_beta2: float = 0.999
    clip_norm: float = 1.0
    """0 = gradients are not clipped."""
    ema_decay: float = 0.999
    """Cap of the per-step decay (1 + s) / (10 + s); 0 = no EMA."""
    ema_on_cpu: bool = False
    """Keep the fp32 average in main memory instead of the device's."""

    # Memory and device
    device: Literal["auto", "cpu"] = "auto"
    """"auto" = a GPU where there is one, else the CPU; or "cpu"."""
    precision: Held = "bf16"
    """Autocast of the networks; noise, losses, size conditioning and EMA stay fp32."""
    unet_dtype: Held = "fp32"
    """How the UNet's weights are held; LQ encoder, alignment module and LoRA always hold fp32 masters when they train."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: about a third more time, much less memory."""
    threads: int = 0
    """torch threads; 0 = torch's own choice."""

    # Safety and reports
    save_every: int = 200
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    log_every: int = 20
    validate_every: int = 0
    """Restore validation pictures and measure the validation loss every so many steps; 0 = never."""
    validation_pictures: int = 4
    validation_sampling_steps: int = 20
    tracker: str = "tensorboard"
    """An accelerate tracker: tensorboard, wandb, trackio, ...; "none" leaves only log.jsonl."""

    def __post_init__(self) -> None:
        check(self, choices=CHOICES, parts=PARTS_OF_STAGE["joint"])

    @property
    def restored_side_px(self) -> int:
        """Side of the crops that the frozen model restores."""
        return self.restored_crop_px or max(self.crop_px, self.late_crop_px)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that train, in the order lq_encoder, alignment, unet."""
        chosen = tuple(filter(None, self.trains.split(","))) or PARTS_OF_STAGE[self.stage]
        order = (*PARTS_OF_STAGE["joint"], *VAE_STAGES, *PARTS_OF_STAGE["fidelity"])
        return tuple(sorted(chosen, key=order.index))

    def crops_at(self, step: int) -> tuple[int, int]:
        """(crops a step over all processes, crop side px) at optimiser step `step` (from 0)."""
        if step >= self.late_from_frac * self.steps:
            return self.late_batch_size or self.batch_size, self.late_crop_px or self.crop_px
        return self.batch_size, self.crop_px


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


CHOICES = {name: _choices(kind) for name, kind in get_type_hints(TrainConfig).items() if _choices(kind)}
"""Settings that take one of a few texts."""


KINDS: dict[str, type] = {name: str if name in CHOICES else kind for name, kind in get_type_hints(TrainConfig).items()}
"""str, int, float or bool, for every setting."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files a run starts from. Which are needed depends on the stage; see weights/initial.py.

    data: manifest. vae: VAE to use in place of the base's. init: run folder, or FaithDiff file. base: SDXL checkpoint or
    diffusers folder. text: diffusers folder with the text encoders, where base has none. perceptual: folder with the weights of
    a perceptual distance.
    """

    data: Path
    vae: Path | None = None
    init: Path | None = None
    base: Path | None = None
    text: Path | None = None
    perceptual: Path | None = None
