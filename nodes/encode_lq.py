"""Encode LQ Features: the degraded image, at the target size, to features and a latent to start from."""

from __future__ import annotations

import logging

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import torch
from comfy_api.latest import io

from ..faithdiff_core.geometry import LATENT_CELL_PX, Size, latent_size, pad_to_latent_cells
from . import host
from .bundle import FaithDiffFeatures, FaithDiffModel
from .types import CATEGORY, FaithDiffFeaturesType, FaithDiffModelType

# Bytes per pixel and byte of type at the encoder's peak, measured by the host for the same network (H comfy/sd.py,
# memory_used_encode).
ENCODER_BYTES_PER_PX = 1767
RELEASED_ENCODER_WIDTH = 128  # the width that figure is for


class FaithDiffEncodeLQ(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffEncodeLQ",
            display_name="Encode LQ Features",
            category=CATEGORY,
            description="Reads a degraded image into FaithDiff features. Enlarge the image to the size you want first; "
            "any size will do.",
            inputs=[
                FaithDiffModelType.Input("faithdiff", tooltip="From Load FaithDiff Model."),
                io.Image.Input(
                    "image",
                    tooltip="The degraded image, already at the target size (enlarge it with Lanczos or an upscale "
                    "model). Alpha is left out; FaithDiff Color Fix puts it back.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="SDXL VAE. With it the latent output is the image itself, which the released weights start "
                    "from; without, it is empty.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=16384,
                    step=64,
                    advanced=True,
                    tooltip="Pixels per tile; 0 encodes the whole image, which is exact. Tiled encoding is not in this version.",
                ),
            ],
            outputs=[
                FaithDiffFeaturesType.Output(display_name="features", tooltip="For Align Latent."),
                io.Latent.Output(
                    tooltip="The image as latent (or an empty one of the right size without a VAE), for Align Latent."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, faithdiff: FaithDiffModel, image: torch.Tensor, tile_size: int, vae: comfy.sd.VAE | None = None
    ) -> io.NodeOutput:
        if image.ndim != 4 or image.shape[-1] < 3 or 0 in image.shape:
            raise ValueError(
                f"expected an IMAGE (batch, height, width, 3 or 4 channels), got shape {tuple(image.shape)}; check what "
                "is connected"
            )
        _check_vae(vae)
        size_px = Size(*image.shape[1:3])
        if tile_size and max(size_px) > tile_size:
            raise ValueError(
                f"expected tile_size 0 or at least {max(size_px)} for an image of {size_px} px, got {tile_size}; encoding "
                "in tiles is not in this version, and naive tiles would change colours and edges"
            )
        rgb_BCHW = pad_to_latent_cells(image[..., :3].movedim(-1, 1))
        features = FaithDiffFeatures(encode(faithdiff, rgb_BCHW), size_px, faithdiff)
        return io.NodeOutput(features, {"samples": _start_latent(vae, rgb_BCHW)})


def encode(faithdiff: FaithDiffModel, rgb_BCHW: torch.Tensor) -> torch.Tensor:
    """LQ features (B, feature_channels, H/8, W/8) of images (B, 3, H, W) in [0, 1] whose sides are multiples of 8.

    One image at a time in the device's memory; a result that is not finite in half precision is computed again in fp32.
    """
    patcher = faithdiff.encoder
    device = patcher.load_device
    dtype = mm.vae_dtype(device, [torch.float16, torch.bfloat16])  # the release runs it in fp16 (official load_additional_layers)
    _load(patcher, rgb_BCHW, dtype)
    progress = comfy.utils.ProgressBar(rgb_BCHW.shape[0])
    features = []
    for image_BCHW in rgb_BCHW.split(1):
        mm.throw_exception_if_processing_interrupted()
        lq_BCHW = (image_BCHW * 2.0 - 1.0).to(device)
        try:
            feature_BCHW = patcher.model(lq_BCHW.to(dtype))
            if dtype != torch.float32 and not torch.isfinite(feature_BCHW).all():
                logging.warning("FaithDiff: LQ features overflow in %s, computing them again in fp32", dtype)
                feature_BCHW = patcher.model(lq_BCHW.float())
        except Exception as e:
            if host.is_oom(e):  # raised on as it is: the host knows it by its type, and frees what it holds
                size = Size(*rgb_BCHW.shape[-2:])
                logging.error(
                    "FaithDiff: out of memory while encoding a %s px image whole; use a smaller target size or start "
                    "ComfyUI with --cpu-vae",
                    size,
                )
            raise
        features.append(feature_BCHW.to(mm.intermediate_device()))
        progress.update(1)
    features_BCHW = torch.cat(features)
    if not torch.isfinite(features_BCHW).all():
        raise ValueError(
            "expected an image of finite values in [0, 1], got LQ features with NaN or infinity; check the image input"
        )
    return features_BCHW


def _load(patcher, rgb_BCHW: torch.Tensor, dtype: torch.dtype) -> None:
    width_frac = patcher.model.sizes.block_out_channels[0] / RELEASED_ENCODER_WIDTH
    pixels = rgb_BCHW.shape[-2] * rgb_BCHW.shape[-1]
    mm.load_models_gpu([patcher], memory_required=ENCODER_BYTES_PER_PX * width_frac * pixels * dtype.itemsize)


def _start_latent(vae: comfy.sd.VAE | None, rgb_BCHW: torch.Tensor) -> torch.Tensor:
    if vae is None:
        cells = latent_size(Size(*rgb_BCHW.shape[-2:]))
        return torch.zeros((rgb_BCHW.shape[0], 4, *cells), device=mm.intermediate_device())
    return vae.encode(rgb_BCHW.movedim(1, -1))


def _check_vae(vae: comfy.sd.VAE | None) -> None:
    if vae is not None and (vae.latent_channels != 4 or vae.downscale_ratio != LATENT_CELL_PX):
        got = f"{vae.latent_channels} channels at 1/{vae.downscale_ratio}"
        raise ValueError(f"expected an SDXL VAE (4 channels at 1/8), got one of {got}; take the VAE of an SDXL checkpoint")
