"""Colour correction: give a restored image the colours of its degraded original, or, with neutral, take that one's cast away.

adain and wavelet are those of the official utils/color_fix.py, here in float. All work on whole images, each of a batch by
itself. What they give on faded, stained and grainy photos: docs/colours.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .colors.levels import stretch_levels
from .colors.statistics import match_lab

ADAIN_VARIANCE_EPS = 1e-5
"""Official utils/color_fix.py:48."""
WAVELET_LEVELS = 5
"""Official :95."""
WAVELET_REACH_PX = 2**WAVELET_LEVELS - 1
"""1 + 2 + 4 + 8 + 16: how far the blurs see together."""
STRIP_ROWS = 512
"""With its reach a strip is 1.12 times its own rows."""
BLUR_TAPS = (0.25, 0.5, 0.25)
"""3x3 binomial kernel as an outer product (official :78-82)."""


def adain(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """Each channel's mean and standard deviation moved to the reference's (adaptive instance normalisation)."""
    mean, std = _mean_std(image_BCHW)
    ref_mean, ref_std = _mean_std(reference_BCHW)
    return (image_BCHW - mean) / std * ref_std + ref_mean


def wavelet(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """High frequencies of the image on low frequencies of the reference.

    In strips of rows: blurs of the whole would take ten times its memory. Blurring is linear, so that one blur of the difference
    does for both.
    """
    height = image_BCHW.shape[-2]
    result_BCHW = torch.empty_like(image_BCHW)
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        first, last = max(top - WAVELET_REACH_PX, 0), min(bottom + WAVELET_REACH_PX, height)
        low_BCHW = low_frequencies(reference_BCHW[..., first:last, :] - image_BCHW[..., first:last, :])
        result_BCHW[..., top:bottom, :] = image_BCHW[..., top:bottom, :] + low_BCHW[..., top - first : bottom - first, :]
    return result_BCHW


def wavelet_adain(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """As wavelet, the detail first scaled as adain does.

    In this order, because the last step decides: adain after wavelet would move the colours of every place once more.
    """
    return wavelet(adain(image_BCHW, reference_BCHW), reference_BCHW)


def hsv(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """Hue and saturation of the reference, pixel by pixel, at the value (HSV's, the largest channel) of the image.

    Scaling all channels alike changes nothing but the value. A black reference has no hue: there the result is grey.
    """
    value_B1HW = image_BCHW.amax(dim=1, keepdim=True)
    ref_value_B1HW = reference_BCHW.amax(dim=1, keepdim=True)
    is_black = ref_value_B1HW <= 0.0
    return torch.where(is_black, value_B1HW, reference_BCHW * (value_B1HW / ref_value_B1HW.masked_fill(is_black, 1.0)))


def neutral(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """The image without cast and fading: each channel spread from dark to light. The reference's colours are to go."""
    return stretch_levels(image_BCHW)


METHODS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None] = {
    "adain": adain,
    "wavelet": wavelet,
    "none": None,
    "lab": match_lab,
    "hsv": hsv,
    "wavelet+adain": wavelet_adain,
    "neutral": neutral,
}
"""Name -> function of (image, reference), None to leave the colours alone. What the node and the trainer's command offer, in this
order."""


def fix_colors(image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor, method: str) -> torch.Tensor:
    """The image with the reference's colours, clamped to [0, 1].

    Args:
        image_BCHW: (B, 3, H, W) in [0, 1].
        reference_BCHW: (B, 3, H, W) in [0, 1], the degraded image at the same size.
        method: a name of METHODS.

    Raises:
        ValueError: shapes differ, or an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"expected a colour fix of {', '.join(METHODS)}, got {method!r}")
    fix = METHODS[method]
    if fix is None:
        return image_BCHW
    if image_BCHW.shape != reference_BCHW.shape:
        raise ValueError(f"expected a reference of shape {tuple(image_BCHW.shape)}, got {tuple(reference_BCHW.shape)}")
    return fix(image_BCHW, reference_BCHW).clamp_(0.0, 1.0)


def low_frequencies(image_BCHW: torch.Tensor, levels: int = WAVELET_LEVELS) -> torch.Tensor:
    """The image after `levels` blurs whose taps stand 1, 2, 4, ... pixels apart (a trous), edges repeated."""
    for level in range(levels):
        image_BCHW = _blur(image_BCHW, 2**level)
    return image_BCHW


def _blur(image_BCHW: torch.Tensor, radius_px: int) -> torch.Tensor:
    channels = image_BCHW.shape[1]
    taps = torch.tensor(BLUR_TAPS, dtype=image_BCHW.dtype, device=image_BCHW.device)
    for axis_padding, shape in (((0, 0, radius_px, radius_px), (3, 1)), ((radius_px, radius_px, 0, 0), (1, 3))):
        kernel = taps.reshape(1, 1, *shape).expand(channels, 1, *shape)
        padded = F.pad(image_BCHW, axis_padding, mode="replicate")
        image_BCHW = F.conv2d(padded, kernel, groups=channels, dilation=(radius_px, 1) if shape == (3, 1) else (1, radius_px))
    return image_BCHW


def _mean_std(image_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per image and channel, (B, C, 1, 1); unbiased variance, as official :47. A single pixel has none."""
    pixels = image_BCHW.flatten(2)
    variance = pixels.var(dim=2, keepdim=True) if pixels.shape[2] > 1 else torch.zeros_like(pixels)
    return pixels.mean(dim=2, keepdim=True).unsqueeze(-1), (variance + ADAIN_VARIANCE_EPS).sqrt().unsqueeze(-1)
