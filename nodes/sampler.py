"""FaithDiff Sampler: the host's KSampler with the release's defaults, in tiles."""

from __future__ import annotations

import logging

import comfy.model_patcher
import comfy.samplers
import torch
from comfy_api.latest import io
from nodes import common_ksampler  # the host's

from .planning.plan import plan
from .planning.text import plan_lines
from .seam.host import show_text
from .seam.inputs import check_prompt, checked
from .seam.types import RESTORE_CATEGORY, SEARCHED
from .tiles.inputs import tile_inputs
from .tiles.precision import NOT_FINITE
from .tiles.run import TileSettings
from .tiles.wrapper import with_tiles

NOISE_MODES = ("per image", "shared")


class FaithDiffSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffSampler",
            display_name="FaithDiff Sampler",
            category=RESTORE_CATEGORY,
            description="Denoises with the release's settings, images of any size in overlapping tiles. For an image that "
            "fits in one tile it gives exactly what KSampler gives.",
            search_aliases=[*SEARCHED, "ksampler", "tiled sampler"],
            inputs=[
                io.Model.Input("model", tooltip="From FaithDiff Align Latent."),
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
                    tooltip="How strongly the prompt guides; the release uses 5. A lower value keeps closer to the image; 1 "
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
                io.Latent.Input("latent_image", tooltip="From FaithDiff Align Latent."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 keeps more of the latent that it starts from, in fewer steps.",
                ),
                *tile_inputs(),
                io.Combo.Input(
                    "noise_mode",
                    options=list(NOISE_MODES),
                    default=NOISE_MODES[0],
                    optional=True,
                    advanced=True,
                    tooltip="Starting noise of a batch: one for each image, or the same for all, which flickers less between "
                    "the frames of a video.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The restored latent, for FaithDiff Decode or VAE Decode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
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
        noise_mode: str = NOISE_MODES[0],
    ) -> io.NodeOutput:
        settings = TileSettings(tile_size_px=tile_size, tile_overlap_frac=tile_overlap, tile_batch=tile_batch)
        check_prompt("positive", positive, model)
        if cfg != 1.0 or negative:  # at 1 the host leaves the negative prompt out
            check_prompt("negative", negative, model)
        latent = _sharing_noise(latent_image) if noise_mode == "shared" else latent_image
        tiled = with_tiles(model, settings)
        planned = plan(model, latent["samples"], steps=steps, cfg=cfg, settings=settings)
        if planned.tiles > 1:
            lines = plan_lines(planned)
            logging.info("FaithDiff: %s; %s", *lines[:2])
            show_text(cls, lines)
        (result,) = common_ksampler(
            tiled,
            seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=denoise,
        )  # fmt: skip
        if not torch.isfinite(result["samples"]).all():
            raise ValueError(NOT_FINITE)
        if latent is not latent_image:
            result = {k: v for k, v in result.items() if k != "batch_index"}
            result.update((k, v) for k, v in latent_image.items() if k == "batch_index")
        return io.NodeOutput(result)


def _sharing_noise(latent: dict) -> dict:
    """The latent with the same number in its batch for every image, by which the host chooses their noise."""
    images = latent["samples"].shape[0]
    return {**latent, "batch_index": [latent.get("batch_index", [0])[0]] * images}
