"""The colours under alpha 0, which nobody has seen: they must not come into the visible part by enlarging or encoding."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def visible_colors(image_HWC: torch.Tensor) -> torch.Tensor:
    """The first three channels of a picture of three or four, with `fill_hidden` by the fourth."""
    color_HWC = image_HWC[..., :3]
    return color_HWC if image_HWC.shape[-1] == 3 else fill_hidden(color_HWC, image_HWC[..., 3])


def fill_hidden(color_HWC: torch.Tensor, alpha_HW: torch.Tensor) -> torch.Tensor:
    """Give pixels of alpha 0 the colours of the visible ones around them.

    Visible pixels keep theirs to the bit. The rest is filled from ever coarser means of what is visible, so a hole takes smoothly
    over from one edge to the other, as far as the picture reaches.

    Args:
        color_HWC: floats (H, W, 3).
        alpha_HW: (H, W), visible where it is above 0.

    Returns:
        `color_HWC` itself if nothing is hidden, or if all of it is.
    """
    visible_HW = alpha_HW > 0
    if bool(visible_HW.all()) or not bool(visible_HW.any()):
        return color_HWC
    weight = visible_HW.to(torch.float32)[None, None]
    color = color_HWC.movedim(-1, 0)[None].to(torch.float32)
    filled = _filled(torch.where(weight > 0, color, 0.0), weight)[0].movedim(0, -1).to(color_HWC)
    return torch.where(visible_HW[..., None], color_HWC, filled)


def _filled(color_1CHW: torch.Tensor, weight_11HW: torch.Tensor) -> torch.Tensor:
    """Where the weight is 0, the colours of the next coarser level, filled in the same way."""
    if bool((weight_11HW > 0).all()):
        return color_1CHW
    # Means of 2 x 2 pixels, of the visible ones alone; an odd last row or column has less to average.
    sum_ = F.avg_pool2d(color_1CHW * (weight_11HW > 0), 2, ceil_mode=True, count_include_pad=False)
    share = F.avg_pool2d((weight_11HW > 0).to(color_1CHW), 2, ceil_mode=True, count_include_pad=False)
    coarse = _filled(torch.where(share > 0, sum_ / share.clamp_min(1e-6), 0.0), share)
    finer = F.interpolate(coarse, size=color_1CHW.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(weight_11HW > 0, color_1CHW, finer)
