"""How far a fidelity decoder's picture is from the truth, in pixels. Pictures are (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F

SURROUNDINGS_PX = 9
"""Side of the mean that a pixel is compared with: wider than the strokes of letters that are lost first (2 to 4 px)."""
FLAT = 0.01
"""Added to a crop's mean contrast, about one step of 255: so that noise in a flat crop does not count as strokes."""
ROUNDING = 0.02
"""Added to the LQ picture's error, some two steps of 255: what differs no more than by rounding need not be bettered."""


def pixel_loss(got_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor, lq_BCHW: torch.Tensor, stroke_weight: float) -> torch.Tensor:
    """Mean over the crops of the weighted squared error, as a share of the LQ picture's: 1 is no better than enlarging. All
    weights are 1 where `stroke_weight` is 0.

    A share, because a clean crop's errors are a fraction of a noisy one's: by plain L1 nano was 1.3 dB worse than enlarging at
    Level I, scale 2, after 1,000 steps. Squares, because L1 settles for what is likeliest where the truth cannot be known: by L1
    as a share nano sharpened what was sharp, and noise, too (after 4,000 steps photos of Level I were 1.0 dB worse at scale 2,
    those of level heavy no better).
    """
    weight_B1HW = stroke_weights(wanted_BCHW.float(), stroke_weight)
    got_B, lq_B = (
        ((picture.float() - wanted_BCHW.float()).square().mean(1, keepdim=True) * weight_B1HW).mean((1, 2, 3))
        for picture in (got_BCHW, lq_BCHW)
    )
    return (got_B / (lq_B + ROUNDING**2 * weight_B1HW.mean((1, 2, 3)))).mean()


def stroke_weights(truth_BCHW: torch.Tensor, stroke_weight: float) -> torch.Tensor:
    """1 + stroke_weight * |truth - mean of its surroundings| / (the crop's mean of that), (B, 1, H, W)."""
    if not stroke_weight:
        return torch.ones_like(truth_BCHW[:, :1])
    around_BCHW = F.avg_pool2d(truth_BCHW, SURROUNDINGS_PX, stride=1, padding=SURROUNDINGS_PX // 2, count_include_pad=False)
    contrast_B1HW = (truth_BCHW - around_BCHW).abs().mean(1, keepdim=True)
    return 1.0 + stroke_weight * contrast_B1HW / (contrast_B1HW.mean((2, 3), keepdim=True) + FLAT)


def mean_psnr_db(got_BCHW: torch.Tensor, wanted_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean PSNR of the pictures, clamped to [-1, 1], for a range of 2; at most 100 dB a picture."""
    mse_B = (got_BCHW.float().clamp(-1, 1) - wanted_BCHW.float()).square().mean((1, 2, 3)) / 4
    return (-10 * torch.log10(mse_B + 1e-10)).mean()
