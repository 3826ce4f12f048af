"""What FaithDiff Word Attribution shows: heat maps over pictures, masks, and figures in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...faithdiff_core.attribution import enlarged, half_area_frac, on_one_scale
from ...faithdiff_core.fidelity.heat_map import draw
from ...faithdiff_core.geometry import Size

RUNS = ("with FaithDiff", "without FaithDiff")


@dataclass(frozen=True, kw_only=True)
class WordRun:
    """One sampling run and where its attention to each word went.

    Attributes:
        shares_BWHW: (images, words, H, W) in latent cells, shares of the attention in [0, 1].
        pictures_BHWC: what the run gave, decoded, in [0, 1].
    """

    shares_BWHW: torch.Tensor
    pictures_BHWC: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The maps of all words, for each word those of all images, for each image those of all runs.

    Attributes:
        pictures_BHWC: heat over the runs' pictures in grey, in [0, 1].
        masks_BHW: the heat itself, in [0, 1], at the pictures' size.
        figures: a line for each map, numbered as they are.
    """

    pictures_BHWC: torch.Tensor
    masks_BHW: torch.Tensor
    figures: str


def show(words: tuple[str, ...], runs: list[WordRun]) -> Shown:
    """Pictures, masks and figures of one or two runs, the first with FaithDiff. A word has one scale per image for all runs."""
    pictures, masks, figures = [], [], []
    images = runs[0].shares_BWHW.shape[0]
    for at, word in enumerate(words):
        for image in range(images):
            heats_RHW = on_one_scale(torch.stack([run.shares_BWHW[image, at] for run in runs]))
            for run, heat_HW, name in zip(runs, heats_RHW, RUNS, strict=False):
                picture_CHW = run.pictures_BHWC[image, ..., :3].float().cpu().movedim(-1, 0)
                mask_HW = enlarged(heat_HW, Size(*picture_CHW.shape[1:]))
                which = f" (image {image + 1})" if images > 1 else ""
                label = f"{word}{which}" if len(runs) == 1 else f"{word}{which}, {name}"
                pictures.append(torch.empty(*mask_HW.shape, 3))
                draw(mask_HW, picture_CHW, pictures[-1])
                masks.append(mask_HW)
                figures.append(f"{len(masks)}. {label}: {_figures(run.shares_BWHW[image, at])}")
    return Shown(pictures_BHWC=torch.stack(pictures), masks_BHW=torch.stack(masks), figures="\n".join(figures))


def _figures(share_HW: torch.Tensor) -> str:
    mean, most, area = float(share_HW.mean()), float(share_HW.max()), half_area_frac(share_HW)
    return f"{mean:.2%} of the attention on average, {most:.2%} at most; half of it on {area:.0%} of the picture"
