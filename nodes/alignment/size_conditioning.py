"""SDXL's size conditioning, set from the image that is restored instead of by the prompt node.

Order of the six numbers: original height, original width, crop top, crop left, target height, target width (SDXL paper,
section 2.2; H comfy/model_base.py, SDXL.encode_adm; official pipeline_FaithDiff_tlc.py:1337-1345).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_base
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Size, padded_size_px
from ..seam.bundle import FaithDiffFeatures


@dataclass(frozen=True, kw_only=True)
class SizeConditioning:
    """The six numbers, in pixels; the crop in the unit that the weights were trained with."""

    original_px: Size
    crop_top_left: tuple[int, int]
    target_px: Size

    @classmethod
    def untiled(cls, features: FaithDiffFeatures) -> SizeConditioning:
        """For an image in one piece.

        The original size is that of the padded image, as in the release (official test.py:126-130).
        """
        target = features.model.metadata.target_size_px
        return cls(original_px=padded_size_px(features.size_px), crop_top_left=(0, 0), target_px=Size(target, target))

    @classmethod
    def for_tile(cls, features: FaithDiffFeatures, origin_lat: list[int], tile_px: int) -> SizeConditioning:
        """For one tile of an image.

        The release gives the crop in latent cells and the tile as target (official pipeline_FaithDiff_tlc.py:1337-1343,
        test.py:130); files of ours may have learnt pixels, and say so.
        """
        unit = 1 if features.model.metadata.crop_units == "latent" else LATENT_CELL_PX
        top, left = (start * unit for start in origin_lat)
        return cls(original_px=padded_size_px(features.size_px), crop_top_left=(top, left), target_px=Size(tile_px, tile_px))

    def embed(self, model: comfy.model_base.SDXL) -> torch.Tensor:
        """(1, 6 * 256) by the model's own timestep embedder."""
        return _embedded((*self.original_px, *self.crop_top_left, *self.target_px), model)

    def replace_in(self, y_BC: torch.Tensor, model: comfy.model_base.SDXL) -> torch.Tensor:
        """`y` = (pooled text, size) with its size part replaced."""
        embedded = self.embed(model).to(y_BC)
        return torch.cat([y_BC[:, : -embedded.shape[1]], embedded.expand(y_BC.shape[0], -1)], dim=1)


def replace_sizes(y_NC: torch.Tensor, sizes: list[SizeConditioning], model: comfy.model_base.SDXL) -> torch.Tensor:
    """`y` with the size part of each row replaced by its own."""
    embedded_NC = torch.cat([size.embed(model) for size in sizes]).to(y_NC)
    return torch.cat([y_NC[:, : -embedded_NC.shape[1]], embedded_NC], dim=1)


def replace_crops(y_NC: torch.Tensor, crops_px: list[tuple[int, ...]], model: comfy.model_base.SDXL) -> torch.Tensor:
    """`y` with nothing but the crop (top, left) of each row replaced, for a MODEL without alignment."""
    embedded_NC = torch.cat([_embedded(crop, model) for crop in crops_px]).to(y_NC)
    width = embedded_NC.shape[1]  # of two of the six numbers; the crop is the middle pair
    return torch.cat([y_NC[:, : -2 * width], embedded_NC, y_NC[:, -width:]], dim=1)


def _embedded(numbers: tuple[int, ...], model: comfy.model_base.SDXL) -> torch.Tensor:
    return model.embedder(torch.tensor(numbers, dtype=torch.float32)).flatten().unsqueeze(0)


def with_size_conditioning(cond: dict[str, Any], size: SizeConditioning, model: comfy.model_base.SDXL) -> dict[str, Any]:
    """A copy of a processed condition with its size conditioning replaced."""
    y = cond["model_conds"]["y"]
    return {**cond, "model_conds": {**cond["model_conds"], "y": type(y)(size.replace_in(y.cond, model))}}
