"""FaithDiff Align Latent: a MODEL that restores the encoded image, and the latent to start from."""

from __future__ import annotations

import logging

import comfy.model_patcher
import torch
from comfy_api.latest import io

from .alignment.hook import AlignmentState, attach, detach, mask_to_cells
from .seam.bundle import FaithDiffFeatures, check_size
from .seam.inputs import FROM_A_VAE, checked, painted
from .seam.types import RESTORE_CATEGORY, SEARCHED, FaithDiffFeaturesType
from .seam.unet_loader import model_channels, require_sdxl


class FaithDiffAlignLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffAlignLatent",
            display_name="FaithDiff Align Latent",
            category=RESTORE_CATEGORY,
            description="Ties the MODEL to the encoded image. The result is an ordinary SDXL MODEL: any sampler, LoRA or "
            "ControlNet works with it.",
            search_aliases=[*SEARCHED, "alignment"],
            inputs=[
                io.Model.Input("model", tooltip="From Load FaithDiff Model."),
                FaithDiffFeaturesType.Input("features", tooltip="From FaithDiff Encode LQ Features."),
                io.Latent.Input("latent", tooltip="From FaithDiff Encode LQ Features; of the size of the image."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How strongly the picture follows the degraded image: 1 as trained, 0 is the plain base model.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Point of the denoising at which alignment begins; 0 is the start.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Point of the denoising at which alignment ends; 1 is the end. Below 1 the last steps "
                    "follow the photo less and invent more.",
                ),
                io.Combo.Input(
                    "start_from",
                    options=["lq", "noise"],
                    default="lq",
                    tooltip="lq starts from the degraded image plus full noise, as the release does; noise starts from "
                    "noise alone.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Alignment strength over the image: white follows the degraded image, black leaves the base "
                    "model free. Load Image's mask counts once something is painted.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The aligned MODEL, for FaithDiff Sampler or any other."),
                io.Latent.Output(tooltip="The latent to start from."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        features: FaithDiffFeatures,
        latent: dict,
        strength: float,
        start_percent: float,
        end_percent: float,
        start_from: str,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        _check(model, features, latent["samples"])
        if start_percent > end_percent:
            raise ValueError(f"expected start_percent <= end_percent, got {start_percent} and {end_percent}")
        mask = painted(mask)
        if mask is not None and not mask.any():
            raise ValueError(
                "expected a mask that is white where the picture is to follow the degraded image, got one that is black all "
                "over; paint it, invert it, or leave mask unconnected to align everything"
            )
        return io.NodeOutput(_aligned(model, features, strength, start_percent, end_percent, mask), _start(latent, start_from))


def _check(model: comfy.model_patcher.ModelPatcher, features: FaithDiffFeatures, samples: torch.Tensor) -> None:
    require_sdxl(model, "model")
    width = features.model.alignment.model.sizes.model_channels
    if model_channels(model) != width:
        raise ValueError(
            f"expected a MODEL of width {width}, which these features' alignment module was made for, got "
            f"{model_channels(model)}; take MODEL and faithdiff from the same Load FaithDiff Model"
        )
    check_size(features, samples)
    if not torch.isfinite(samples).all():
        raise ValueError(f"expected a latent of finite numbers, got NaN or infinity; {FROM_A_VAE}")


def _aligned(
    model: comfy.model_patcher.ModelPatcher,
    features: FaithDiffFeatures,
    strength: float,
    start_percent: float,
    end_percent: float,
    mask: torch.Tensor | None,
) -> comfy.model_patcher.ModelPatcher:
    if strength == 0.0:
        return detach(model)
    state = AlignmentState(
        features=features,
        strength=strength,
        start_percent=start_percent,
        end_percent=end_percent,
        mask_B1HW=None if mask is None else mask_to_cells(mask, features),
    )
    return attach(model, state)


def _start(latent: dict, start_from: str) -> dict:
    samples = latent["samples"]
    if start_from == "noise":
        if latent.get("noise_mask") is not None:
            raise ValueError(
                "expected start_from lq for a latent with a noise mask, got noise, which would empty the part to be kept; use lq"
            )
        return {**latent, "samples": torch.zeros_like(samples)}
    if not samples.any():
        logging.warning(
            "FaithDiff: start_from is lq but the latent is empty; connect a VAE to FaithDiff Encode LQ Features to start "
            "from the image"
        )
    return dict(latent)
