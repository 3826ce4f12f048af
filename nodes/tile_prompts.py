"""FaithDiff Tile Prompts: a prompt for every tile, from a captioning node that FaithDiff Split Into Tiles feeds."""

from __future__ import annotations

import comfy.sd
from comfy_api.latest import io

from ..faithdiff_core.geometry import LATENT_CELL_PX, Size
from .prompt import caption_inputs, prompt_text
from .seam.clip import encode
from .seam.inputs import checked
from .seam.types import PROMPT_CATEGORY
from .tiles.inputs import grid_inputs, grid_of
from .tiles.marks import for_tile


class FaithDiffTilePrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffTilePrompts",
            display_name="FaithDiff Tile Prompts",
            category=PROMPT_CATEGORY,
            description="Gives every tile of the sampler its own caption. The captions come as a list in the order of "
            "FaithDiff Split Into Tiles.",
            search_aliases=["regional prompt", "caption per tile"],
            is_input_list=True,
            inputs=[
                io.Clip.Input("clip", tooltip="CLIP of an SDXL checkpoint, from Load Checkpoint."),
                io.String.Input(
                    "captions",
                    force_input=True,
                    tooltip="One caption for each tile, from a captioning node that is fed by FaithDiff Split Into Tiles. An "
                    "empty one leaves its tile without.",
                ),
                io.Latent.Input("latent_image", tooltip="The latent that the sampler is given; its size places the tiles."),
                *grid_inputs(),
                io.String.Input(
                    "shared",
                    default="",
                    tooltip="Text before the caption of every tile, for example what the whole image shows; may be empty.",
                ),
                *caption_inputs(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="A prompt for each tile, for a sampler with tiles."),
                io.Conditioning.Output(display_name="negative", tooltip="The empty prompt, for all tiles, as in the release."),
                io.String.Output(display_name="texts", is_output_list=True, tooltip="The texts that were encoded, tile by tile."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        clip: list[comfy.sd.CLIP | None],
        captions: list[str],
        latent_image: list[dict],
        tile_size: list[int],
        tile_overlap: list[float],
        shared: list[str],
        trim: list[bool],
        add_quality: list[bool],
    ) -> io.NodeOutput:
        size = Size(*latent_image[0]["samples"].shape[-2:])
        boxes = grid_of(size, tile_size[0], tile_overlap[0])
        if len(captions) != len(boxes):
            columns = sum(box.top == 0 for box in boxes)
            size_px = Size(*(side * LATENT_CELL_PX for side in size))
            raise ValueError(
                f"expected {len(boxes)} captions, one for each of {columns}x{len(boxes) // columns} tiles (tile_size "
                f"{tile_size[0]}, tile_overlap {tile_overlap[0]:g}) of an image of {size_px} px, got {len(captions)}; connect a "
                "captioning node that is fed by FaithDiff Split Into Tiles with the same tile_size and tile_overlap"
            )
        captioned = [prompt_text(caption, trim=trim[0], add_quality=add_quality[0]) for caption in captions]
        texts = [f"{shared[0].strip()} {text}".strip() for text in captioned]
        prompts = {text: encode(clip[0], text) for text in dict.fromkeys(texts)}
        positive = [for_tile(prompt, box) for box, text in zip(boxes, texts, strict=True) for prompt in prompts[text]]
        return io.NodeOutput(positive, encode(clip[0], ""), texts)
