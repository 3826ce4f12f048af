"""FaithDiff Plan: what FaithDiff Sampler will do with an image, before it does it."""

from __future__ import annotations

import comfy.model_patcher
import comfy.sample
import torch
from comfy_api.latest import io, ui

from ..faithdiff_core.geometry import LATENT_CELL_PX
from .alignment.hook import detach
from .no_prompt import FaithDiffNoPrompt
from .planning.plan import Plan, plan
from .planning.text import plan_lines
from .seam.host import show_text
from .seam.inputs import checked
from .seam.types import REPORT_CATEGORY
from .tiles.clock import shapes_known
from .tiles.inputs import tile_inputs
from .tiles.run import LATENT_CHANNELS, TileSettings
from .tiles.wrapper import with_tiles


class FaithDiffPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffPlan",
            display_name="FaithDiff Plan",
            category=REPORT_CATEGORY,
            description="Says how many tiles and UNet calls an image will take, and about how much memory and time, without "
            "sampling.",
            search_aliases=["estimate", "memory", "tiles"],
            inputs=[
                io.Model.Input("model", tooltip="From FaithDiff Align Latent, or any SDXL MODEL."),
                io.Latent.Input("latent_image", tooltip="The latent that will be sampled."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Denoising steps, as in FaithDiff Sampler."),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="As in FaithDiff Sampler; 1 takes one prompt instead of two.",
                ),
                *tile_inputs(),
                io.Boolean.Input(
                    "measure",
                    default=False,
                    advanced=True,
                    tooltip="Where no run has been timed yet: loads the MODEL and times a UNet call. Otherwise loads nothing.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="plan", tooltip="The plan in a few lines, as the node shows it."),
                io.Int.Output(display_name="tiles", tooltip="Tiles of all images together."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        latent_image: dict,
        steps: int,
        cfg: float,
        tile_size: int,
        tile_overlap: float,
        tile_batch: int,
        measure: bool,
    ) -> io.NodeOutput:
        settings = TileSettings(tile_size_px=tile_size, tile_overlap_frac=tile_overlap, tile_batch=tile_batch)
        found = plan(model, latent_image["samples"], steps=steps, cfg=cfg, settings=settings)
        if measure and found.time is None:
            time_calls(model, found, cfg)
            found = plan(model, latent_image["samples"], steps=steps, cfg=cfg, settings=settings)
        lines = plan_lines(found)
        show_text(cls, lines)
        text = "\n".join(lines)
        return io.NodeOutput(text, found.tiles, ui=ui.PreviewText(text))

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> int:
        """A tile size that was timed for the first time changes the plan.

        Later runs of it do not: what hangs on this node's outputs would run again after each.
        """
        return shapes_known()


def time_calls(model: comfy.model_patcher.ModelPatcher, planned: Plan, cfg: float) -> None:
    """Samples two steps of the plan's largest call on zeros, whose time is then remembered like any run's.

    The first step is for warming up. Without the alignment, which is 1 % of the work: its features are those of the image.
    """
    size = [side // LATENT_CELL_PX for side in planned.tile_px]
    zeros_BCHW = torch.zeros(planned.units_in_call, LATENT_CHANNELS, *size)
    untiled = TileSettings(tile_size_px=0, tile_overlap_frac=0.0, tile_batch=planned.units_in_call)
    (prompt,) = FaithDiffNoPrompt.execute(model).args
    comfy.sample.sample(
        with_tiles(detach(model), untiled), zeros_BCHW, 2, cfg, "euler", "simple", prompt, prompt, zeros_BCHW, disable_pbar=True
    )
