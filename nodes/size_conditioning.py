"""SDXL's size conditioning, set from the image that is restored instead of by the prompt node.

Order of the six numbers: original height, original width, crop top, crop left, target height, target width (SDXL paper,
section 2.2; H comfy/model_base.py, SDXL.encode_adm; official pipeline_FaithDiff_tlc.py:1337-1345).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_base
import torch

from ..faithdiff_core.geometry import Size, padded_size_px
from .bundle import FaithDiffFeatures


@dataclass(frozen=True, kw_only=True)
class SizeConditioning:
    original_px: Size
    crop_top_left: tuple[int, int]
    target_px: Size

    @classmethod
    def untiled(cls, features: FaithDiffFeatures) -> SizeConditioning:
        """For an image in one piece. The original size is that of the padded image, as in the release (official
        test.py:126-130)."""
        target = features.model.metadata.target_size_px
        return cls(original_px=padded_size_px(features.size_px), crop_top_left=(0, 0), target_px=Size(target, target))

    def embed(self, model: comfy.model_base.SDXL) -> torch.Tensor:
        """(1, 6 * 256) by the model's own timestep embedder."""
        numbers = (*self.original_px, *self.crop_top_left, *self.target_px)
        return model.embedder(torch.tensor(numbers, dtype=torch.float32)).flatten().unsqueeze(0)

    def replace_in(self, y_BC: torch.Tensor, model: comfy.model_base.SDXL) -> torch.Tensor:
        """`y` = (pooled text, size) with its size part replaced."""
        embedded = self.embed(model).to(y_BC)
        return torch.cat([y_BC[:, : -embedded.shape[1]], embedded.expand(y_BC.shape[0], -1)], dim=1)


def with_size_conditioning(cond: dict[str, Any], size: SizeConditioning, model: comfy.model_base.SDXL) -> dict[str, Any]:
    """A copy of a processed condition with its size conditioning replaced."""
    y = cond["model_conds"]["y"]
    return {**cond, "model_conds": {**cond["model_conds"], "y": type(y)(size.replace_in(y.cond, model))}}
