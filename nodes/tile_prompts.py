"""A prompt for every tile: Split Into Tiles feeds a captioning node, Tile Prompts takes its captions."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io

from ..faithdiff_core.geometry import LATENT_CELL_PX, Box, Size, latent_size
from .prompt import caption_inputs, encode, prompt_text
from .seam.inputs import checked, checked_lists
from .seam.types import CATEGORY
from .tile_model import tile_inputs
from .tiles.marks import for_tile
from .tiles.run import TileSettings


def grid_inputs() -> list[io.Input]:
    """The sampler's inputs that place its tiles."""
    return [i for i in tile_inputs() if i.id in ("tile_size", "tile_overlap")]


class FaithDiffSplitTiles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffSplitTiles",
            display_name="Split Into Tiles",
            category=CATEGORY,
            description="Cuts the enlarged image into the tiles that the sampler will work in, one by one, row by row, so that "
            "any captioning node describes each of them for Tile Prompts.",
            search_aliases=["tile list", "caption tiles", "faithdiff"],
            inputs=[
                io.Image.Input("image", tooltip="The enlarged image, the same that Encode LQ Features is given."),
                *grid_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="tiles", is_output_list=True, tooltip="The tiles as a list; a captioning node runs on each."
                )
            ],
        )

    @classmethod
    @checked
    def execute(cls, image: torch.Tensor, tile_size: int, tile_overlap: float) -> io.NodeOutput:
        boxes = _grid(latent_size(Size(*image.shape[1:3])), tile_size, tile_overlap)
        px = [Box(*(side * LATENT_CELL_PX for side in box)) for box in boxes]
        return io.NodeOutput([image[:, b.top : b.top + b.height, b.left : b.left + b.width] for b in px])


class FaithDiffTilePrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffTilePrompts",
            display_name="Tile Prompts",
            category=CATEGORY,
            description="Gives every tile of the sampler its own caption. The captions come as a list in the order of Split Into "
            "Tiles.",
            search_aliases=["regional prompt", "caption per tile", "faithdiff"],
            is_input_list=True,
            inputs=[
                io.Clip.Input("clip", tooltip="CLIP of an SDXL checkpoint, from Load Checkpoint."),
                io.String.Input(
                    "captions",
                    force_input=True,
                    tooltip="One caption for each tile, from a captioning node that is fed by Split Into Tiles. An empty one "
                    "leaves its tile without.",
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
    @checked_lists
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
        boxes = _grid(size, tile_size[0], tile_overlap[0])
        if len(captions) != len(boxes):
            columns = sum(box.top == 0 for box in boxes)
            size_px = Size(*(side * LATENT_CELL_PX for side in size))
            raise ValueError(
                f"expected {len(boxes)} captions, one for each of {columns}x{len(boxes) // columns} tiles (tile_size "
                f"{tile_size[0]}, tile_overlap {tile_overlap[0]:g}) of an image of {size_px} px, got {len(captions)}; connect a "
                "captioning node that is fed by Split Into Tiles with the same tile_size and tile_overlap"
            )
        captioned = [prompt_text(caption, trim=trim[0], add_quality=add_quality[0]) for caption in captions]
        texts = [f"{shared[0].strip()} {text}".strip() for text in captioned]
        prompts = {text: encode(clip[0], text) for text in dict.fromkeys(texts)}
        positive = [for_tile(prompt, box) for box, text in zip(boxes, texts, strict=True) for prompt in prompts[text]]
        return io.NodeOutput(positive, encode(clip[0], ""), texts)


def _grid(size: Size, tile_size_px: int, overlap_frac: float) -> list[Box]:
    settings = TileSettings(tile_size_px=tile_size_px, tile_overlap_frac=overlap_frac, tile_batch=0)
    return settings.grid(size, settings.tile_lat)
