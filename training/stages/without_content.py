"""Networks, batches and crops of a stage without content, for the estimate of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from torch import nn

from training.batches.restored_cache import PICTURES
from training.batches.restored_crops import DrawnCrop, FrozenModel
from training.config.schema import VAE_STAGES, TrainConfig
from training.loop.task import Batch, Task
from training.metrics.perceptual import PerceptualDistance
from training.model.faithdiff import build_model, make_part
from training.model.networks import CONTEXT_TOKENS, build_vae, network_spec
from training.tasks.diffusion import DiffusionTask
from training.tasks.fidelity import FidelityTask, build_network
from training.tasks.vae import VAETask

CPU = torch.device("cpu")


def stage_without_content(config: TrainConfig, perceptual: PerceptualDistance | None = None) -> tuple[Task, AutoencoderKL | None]:
    """The stage, on the meta device, and the frozen VAE where the run encodes its crops."""
    with torch.device("meta"):
        if config.stage in VAE_STAGES:
            vae = build_vae(network_spec(config.network))
            return VAETask(replace(config, device="cpu"), cast(Any, None), vae), None
        if config.stage == "fidelity":
            encoder = None if config.restored_features else cast(Any, make_part(config, "lq_encoder"))
            return FidelityTask(config, cast(Any, None), build_network(config, encoder), device=CPU, perceptual=perceptual), None
        model = build_model(config)
        vae = None if config.latent_crops else build_vae(network_spec(config.network)).requires_grad_(False).eval()
    return DiffusionTask(config, cast(Any, None), model, device=CPU, vae=None, texts=None), vae


def materialise(model: nn.Module) -> None:
    """Replace a meta module's parameters and buffers by such as the mode at hand makes; to_empty cannot under FakeTensorMode."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            empty = torch.empty(value.shape, dtype=value.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=value.requires_grad))
        for name, value in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(value.shape, dtype=value.dtype))


def frozen_without_content(config: TrainConfig) -> FrozenModel:
    """What restores the crops of stage fidelity, on the meta device; without prompts, whose embeddings are small."""
    with torch.device("meta"):
        model = build_model(config).requires_grad_(False).eval()
        vae = build_vae(network_spec(config.network)).requires_grad_(False).eval()
    return FrozenModel(model=model, vae=vae, texts=None, device=CPU)


def empty_crop(config: TrainConfig) -> DrawnCrop:
    """A crop as stage fidelity draws it."""
    side_px = config.restored_side_px
    image, noise = torch.empty(3, side_px, side_px), torch.empty(4, side_px // 8, side_px // 8)
    ids = torch.empty(6)
    return DrawnCrop(hq_CHW=image, lq_CHW=torch.empty_like(image), time_ids_6=ids, prompt="", noise_CHW=noise, truth_noise=0.0)


def empty_batch(config: TrainConfig, crops: int, crop_px: int) -> Batch:
    """A batch as the stage's task makes it, without content."""
    image, latent = torch.empty(crops, 3, crop_px, crop_px), torch.empty(crops, 4, crop_px // 8, crop_px // 8)
    if config.stage in VAE_STAGES:
        return {"image": image, "noise": latent} | ({"error": torch.empty_like(latent)} if config.latent_noise else {})
    if config.stage == "fidelity":
        batch = {name: torch.empty_like(image) for name in PICTURES}
        width = network_spec(config.network).fidelity_decoder.feature_channels
        batch |= {"features": torch.empty(crops, width, crop_px // 8, crop_px // 8)} if config.restored_features else {}
        return batch | ({"adversarial": torch.empty(crops)} if config.adversarial_weight else {})
    draws = crops * config.noise_draws
    noisy = torch.empty(draws, *latent.shape[1:])
    batch = {"noisy": noisy, "noise": torch.empty_like(noisy), "time_ids": torch.empty(crops, 6)}
    batch["timestep"] = torch.zeros(draws, dtype=torch.int64)
    if config.stage != "prior":
        batch["lq"] = image
    if config.prompts != "none":
        spec = network_spec(config.network)
        batch["context"] = torch.empty(crops, CONTEXT_TOKENS, spec.context_width)
        batch["pooled"] = torch.empty(crops, spec.pooled_width)
    return batch
