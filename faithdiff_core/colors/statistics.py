"""Colours by the statistics of whole pictures: the image's brought to the reference's in CIE Lab."""

from __future__ import annotations

import torch

from .lab import lab_of_srgb, srgb_of_lab
from .strips import strips

LAB_VARIANCE_EPS = 0.1
"""AdaIN's 1e-5 of values in [0, 1], on Lab's scale of 100: what has almost no colour is not blown up to the reference's."""


def match_lab(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean and deviation of lightness and of both tints moved to the reference's, each picture of the batch by itself.

    After Reinhard, Ashikhmin, Gooch and Shirley 2001, "Color transfer between images", in CIE Lab.
    """
    result_BCHW = torch.empty_like(image_BCHW)
    for image_CHW, reference_CHW, result_CHW in zip(image_BCHW, reference_BCHW, result_BCHW, strict=True):
        (mean, std), (ref_mean, ref_std) = _lab_statistics(image_CHW), _lab_statistics(reference_CHW)
        gain = (ref_std / std).to(image_CHW)
        offset = (ref_mean - mean * ref_std / std).to(image_CHW)
        for rows in strips(image_CHW.shape[1]):
            lab_CN = lab_of_srgb(image_CHW[:, rows].flatten(1)) * gain + offset
            result_CHW[:, rows] = srgb_of_lab(lab_CN).reshape(result_CHW[:, rows].shape)
    return result_BCHW


def _lab_statistics(image_CHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (3, 1) in float64; sums over strips, so that where they are cut does not show."""
    count = image_CHW[0].numel()
    total, squares = (torch.zeros(3, 1, dtype=torch.float64, device=image_CHW.device) for _ in range(2))
    for rows in strips(image_CHW.shape[1]):
        lab_CN = lab_of_srgb(image_CHW[:, rows].flatten(1)).double()
        total += lab_CN.sum(dim=1, keepdim=True)
        squares += lab_CN.square().sum(dim=1, keepdim=True)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    return mean, (variance + LAB_VARIANCE_EPS).sqrt()
