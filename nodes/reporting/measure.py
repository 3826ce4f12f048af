"""What the fidelity report measures of one image of a batch."""

from __future__ import annotations

import comfy.model_management as mm
import torch

from ...faithdiff_core.fidelity.consistency import color_drift, consistency
from ...faithdiff_core.fidelity.seams import find_seams
from ...faithdiff_core.fidelity.ssim import psnr_db, ssim
from ...faithdiff_core.geometry import Box, Size, padded_size_px
from .text import Measurements


def without_padding(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Without what was padded to whole latent cells, where the other image says so."""
    size_px = Size(*other.shape[1:3])
    if Size(*image.shape[1:3]) == padded_size_px(size_px):
        return image[:, : size_px.height, : size_px.width]
    return image


def measured(
    i: int,
    image: torch.Tensor,
    reference: torch.Tensor,
    truth: torch.Tensor | None,
    compared_px: Size,
    boxes: list[Box],
) -> Measurements:
    """What there is to say of one image.

    Args:
        i: which of the batch.
        image: the results, (B, H, W, 3 or 4) as the host has them.
        reference: the degraded pictures; one, or one for each image.
        truth: the undegraded ones, likewise.
        compared_px: size at which image and reference are compared.
        boxes: the tiles that it was sampled in, in latent cells.
    """
    image_CHW, non_finite = picture(image, i)
    reference_CHW, reference_non_finite = picture(reference, i)
    found = consistency(image_CHW, reference_CHW, compared_px)
    drift = color_drift(image_CHW, reference_CHW)
    mm.throw_exception_if_processing_interrupted()
    seams = find_seams(image_CHW, boxes) if len(boxes) > 1 else None
    counts = {"the image": non_finite, "the reference": reference_non_finite}
    against_truth = None
    if truth is not None:
        truth_CHW, counts["the truth"] = picture(truth, i)
        against_truth = psnr_db(image_CHW, truth_CHW), ssim(image_CHW, truth_CHW)
    return Measurements(
        image_px=Size(*image_CHW.shape[1:]),
        consistency=found,
        drift=drift,
        seams=seams,
        tiles=len(boxes),
        truth=against_truth,
        non_finite={name: count for name, count in counts.items() if count},
    )


def picture(images_BHWC: torch.Tensor, i: int) -> tuple[torch.Tensor, int]:
    """One image, or the only one there is, without alpha as fp32 (3, H, W) in [0, 1]; and how many pixels were not finite."""
    image_CHW = images_BHWC[i if images_BHWC.shape[0] > 1 else 0, ..., :3].float().movedim(-1, 0)
    low, high = (bound.item() for bound in image_CHW.aminmax())
    if low >= 0 and high <= 1:  # and no NaN: most pictures need no copy
        return image_CHW, 0
    non_finite = int((~image_CHW.isfinite()).any(dim=0).sum())
    return image_CHW.nan_to_num(0.0, 0.0, 0.0).clamp_(0, 1), non_finite
