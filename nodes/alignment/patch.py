"""The patch that adds the alignment to the UNet's first features, and what it keeps during one sampling run.

The features' embedding does not depend on the timestep: it is made once per image and cut and kept on the device, as far as a
modest budget goes. Beyond it the embedding is made anew at every step: 0.9 % of a step's FLOPs, where keeping it in main memory
would take 2.5 times what the features do (tiles at half overlap cover each cell four times, 320 channels for 512).

Nor does the module's input depend on the prompt: in a call for several prompts it is computed for one of them.

Shapes: B batch, C channels, H and W latent size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_management as mm
import torch

from ...faithdiff_core.alignment import AlignmentModule
from ...faithdiff_core.geometry import Box
from ..seam.bundle import FaithDiffFeatures

KEY = "faithdiff"

MAX_EMBEDDINGS_BYTES = 512 * 2**20
"""Nearly all tiles of a 4096 x 4096 px image in fp16 (49 of 128 x 128 cells, 320 channels)."""
EMBEDDINGS_OF_FREE_FRAC = 1 / 8
"""And no more than this part of what is free."""


@dataclass(frozen=True, kw_only=True)
class AlignmentState:
    """What FaithDiff Align Latent was asked for; never changed afterwards.

    Attributes:
        features: of the image to restore.
        strength: factor on what the module adds.
        start_percent, end_percent: part of the denoising in which alignment acts.
        mask_B1HW: factor per latent cell in [0, 1], or None for 1 everywhere.
    """

    features: FaithDiffFeatures
    strength: float
    start_percent: float
    end_percent: float
    mask_B1HW: torch.Tensor | None = None


class Embeddings:
    """Embeddings of parts of the features, kept until the budget is used up.

    First come, first kept: tiles come round in the same order at every step, so that dropping the oldest would drop each just
    before it is wanted.
    """

    def __init__(self, features_BCHW: torch.Tensor):
        self._features_BCHW = features_BCHW
        self._kept: dict[tuple, torch.Tensor] = {}
        self._budget_bytes: dict[torch.device, float] = {}

    def part(self, module: AlignmentModule, image: int, box: Box, like: torch.Tensor) -> torch.Tensor:
        """(1, model_channels, H, W) of one part of one image. Cut first: the release normalises per tile."""
        key = (like.device, like.dtype, image, box)
        if key in self._kept:
            return self._kept[key]
        part_BCHW = cut(self._features_BCHW, image, box)
        embedded_BCHW = module.embed(mm.cast_to_device(part_BCHW, like.device, like.dtype))
        left = self._budget_bytes.get(like.device)
        if left is None:
            free_bytes: int = mm.get_free_memory(like.device)  # pyright: ignore[reportAssignmentType]  (a tuple if asked for two)
            left = min(MAX_EMBEDDINGS_BYTES, EMBEDDINGS_OF_FREE_FRAC * free_bytes)
        if embedded_BCHW.nbytes <= left:
            self._kept[key] = embedded_BCHW
            left -= embedded_BCHW.nbytes
        self._budget_bytes[like.device] = left
        return embedded_BCHW

    def clear(self) -> None:
        """Gives everything back and keeps nothing more in this run: the device is out of memory."""
        self._kept.clear()
        self._budget_bytes = dict.fromkeys(self._budget_bytes, 0.0)


@dataclass(frozen=True)
class AlignmentRun:
    """One sampling run.

    Attributes:
        state: what was asked for.
        sigma_start, sigma_end: alignment acts while sigma_end <= sigma <= sigma_start.
        embeddings: those made so far.
    """

    state: AlignmentState
    sigma_start: float
    sigma_end: float
    embeddings: Embeddings


def alignment_patch(module: AlignmentModule, run: AlignmentRun, rows: list[tuple[int, Box]], prompts: int):
    """The input_block_patch of one UNet call.

    Args:
        module: on the device at hand.
        run: the sampling run.
        rows: which part of which image each batch row is.
        prompts: how many times the batch repeats the same rows, one after another; 1 where they differ.
    """
    distinct = rows[: len(rows) // prompts]

    @torch.compiler.disable  # a few small layers once per call; compiled with the UNet they would be compiled anew for every run
    def align(h_BCHW: torch.Tensor, transformer_options: dict[str, Any]) -> torch.Tensor:
        if transformer_options["block"] != ("input", 0) or not _is_active(run, transformer_options):
            return h_BCHW
        embedded_BCHW = torch.cat([run.embeddings.part(module, image, box, h_BCHW) for image, box in distinct])
        delta_BCHW = module(h_BCHW[: len(distinct)], embedded_BCHW)
        if run.state.strength != 1.0:
            delta_BCHW = delta_BCHW * run.state.strength
        if run.state.mask_B1HW is not None:
            mask_B1HW = torch.cat([cut(run.state.mask_B1HW, image, box) for image, box in distinct])
            delta_BCHW = delta_BCHW * mask_B1HW.to(delta_BCHW)
        return (h_BCHW.unflatten(0, (prompts, -1)) + delta_BCHW).flatten(0, 1)

    return align


def cut(map_BCHW: torch.Tensor, image: int, box: Box) -> torch.Tensor:
    """One image's part of a map; a map of one image serves every image."""
    row = image if map_BCHW.shape[0] > 1 else 0
    return map_BCHW[row : row + 1, :, box.top : box.top + box.height, box.left : box.left + box.width]


def _is_active(run: AlignmentRun, transformer_options: dict[str, Any]) -> bool:
    if run.state.start_percent == 0.0 and run.state.end_percent == 1.0:
        return True  # without asking the device for its sigma
    return run.sigma_end <= float(transformer_options["sigmas"][0]) <= run.sigma_start
