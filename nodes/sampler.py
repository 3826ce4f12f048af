"""FaithDiff Sampler: the host's KSampler with the release's defaults, and (to come) tiles."""

from __future__ import annotations

import comfy.model_patcher
import comfy.samplers
import torch
from comfy_api.latest import io
from nodes import common_ksampler  # the host's

from ..faithdiff_core.geometry import LATENT_CELL_PX, Size
from .types import CATEGORY


class FaithDiffSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffSampler",
            display_name="FaithDiff Sampler",
            category=CATEGORY,
            description="Denoises with the release's settings. For an image that fits in one tile it gives exactly what "
            "KSampler gives.",
            search_aliases=["ksampler", "faithdiff", "tiled sampler"],
            inputs=[
                io.Model.Input("model", tooltip="From Align Latent."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise; the same seed gives the same picture.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Denoising steps; the release uses 20."),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How strongly the prompt guides; the release uses 5. Lower keeps closer to the image; 1 "
                    "takes half the time.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    default="euler",
                    tooltip="Solver; euler is the release's.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="ddim_uniform",
                    tooltip="Spacing of the noise levels; ddim_uniform is the release's (951, 901, ... 1 at 20 steps).",
                ),
                io.Conditioning.Input("positive", tooltip="What the image shows; may be empty."),
                io.Conditioning.Input("negative", tooltip="What to avoid; the release leaves it empty."),
                io.Latent.Input("latent_image", tooltip="From Align Latent."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 keeps more of the latent that it starts from, in fewer steps.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=1024,
                    min=0,
                    max=16384,
                    step=64,
                    tooltip="Pixels per tile; 0 samples the whole image at once. This version samples one tile only.",
                ),
                io.Float.Input(
                    "tile_overlap",
                    default=0.5,
                    min=0.0,
                    max=0.95,
                    step=0.05,
                    advanced=True,
                    tooltip="Part of a tile that it shares with the next one.",
                ),
                io.Int.Input(
                    "tile_batch",
                    default=0,
                    min=0,
                    max=64,
                    advanced=True,
                    tooltip="Tiles per UNet call; 0 takes as many as fit. The picture does not depend on it.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The restored latent, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: list,
        negative: list,
        latent_image: dict,
        denoise: float,
        tile_size: int,
        tile_overlap: float,
        tile_batch: int,
    ) -> io.NodeOutput:
        _require_one_tile(latent_image["samples"], tile_size)
        (result,) = common_ksampler(
            model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=denoise
        )
        if not torch.isfinite(result["samples"]).all():
            raise ValueError(
                "expected a finite latent from the sampler, got NaN or infinity; lower cfg or strength, another sampler, "
                "or start ComfyUI with --force-fp32"
            )
        return io.NodeOutput(result)


def _require_one_tile(samples: torch.Tensor, tile_size: int) -> None:
    size_px = Size(*(side * LATENT_CELL_PX for side in samples.shape[-2:]))
    if tile_size and max(size_px) > tile_size:
        raise ValueError(
            f"expected an image of at most {tile_size}x{tile_size} px (one tile), got {size_px}; this version samples one "
            f"tile only: set tile_size to 0 or to {max(size_px)} to sample the image whole, if your memory allows, or "
            "make the image smaller"
        )
