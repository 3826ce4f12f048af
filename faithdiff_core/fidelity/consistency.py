"""How faithful a restored picture is to the degraded one: both brought down to the degraded picture's own size and compared.

What the degradation took away is not there to be compared with; what it left must still be there. All pictures are fp32
(3, H, W), sRGB in [0, 1], and may differ in size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..colors.lab import lab_of_srgb
from ..geometry import Size
from .color import ciede2000
from .ssim import psnr_db, ssim

RELEASE_SCALE = 4.0
"""Official test.py:32, the default of --upscale."""
COARSE_FACTOR = 4
"""Noise of the degraded picture is no property of the scene. Measured on the demo photo (heavy noise): its truth has SSIM 0.63 at
the degraded picture's size and 0.96 at a quarter of it."""
ERROR_WINDOW_PX = 5
"""Single pixels of the map would show the reference's noise, and nothing else."""
COLOR_CELL_PX = 32
"""Colour fix "wavelet" takes from the reference what is coarser than this (color_fix.WAVELET_LEVELS)."""


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The restored picture against the degraded one, at `size_px`.

    Attributes:
        psnr_db: infinity for equal pictures.
        ssim: None where a picture is smaller than SSIM's window; `coarse_ssim` likewise, at a quarter of the size.
        error_HW: the mean difference of the three channels over 5 x 5 px, in [0, 1].
    """

    size_px: Size
    psnr_db: float
    ssim: float | None
    coarse_ssim: float | None
    error_HW: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class ColorDrift:
    """Coarse colours of the restored picture against the degraded one's, in cells of 32 px.

    Attributes:
        mean, p95: CIEDE2000, the mean over cells and the 95th percentile.
        shift_u8: restored less degraded, the mean of each channel in levels of 8 bits.
        difference_HW: CIEDE2000 of each cell.
    """

    mean: float
    p95: float
    shift_u8: tuple[float, float, float]
    difference_HW: torch.Tensor


def compared_size(image: Size, reference: Size, scale: float) -> Size:
    """The size at which a restored image is compared with its degraded reference.

    Args:
        image: size of the restored image.
        reference: size of the degraded one.
        scale: by what factor the degraded picture was enlarged; 0 takes it from the two sizes, and the release's 4 where the
            reference is no smaller than the image, so was enlarged already.

    Raises:
        ValueError: the two have different shapes; the size would be larger than one of them.
    """
    fitting = [((new - 1) / old, (new + 1) / old) for new, old in zip(image, reference, strict=True)]
    if max(low for low, _ in fitting) > min(high for _, high in fitting):
        raise ValueError(
            f"expected a reference of the shape of the image, {image} px, got {reference}; give the picture that it was made "
            "from, uncropped, and the image as it comes from FaithDiff Color Fix"
        )
    is_smaller = reference.height < image.height or reference.width < image.width
    if scale == 0 and is_smaller:
        return reference
    scale = scale or RELEASE_SCALE
    size = Size(*(max(1, round(side / scale)) for side in image))
    if size.height > min(image.height, reference.height) or size.width > min(image.width, reference.width):
        min_scale = max(1.0, image.height / reference.height)
        raise ValueError(
            f"expected a scale of 0 or at least {min_scale:g} for an image of {image} px and a reference of {reference}, got "
            f"{scale:g}; 0 takes it from the sizes"
        )
    return size


def consistency(image_CHW: torch.Tensor, reference_CHW: torch.Tensor, size_px: Size) -> Consistency:
    """Both brought down by bicubic antialiasing, as for the LR-PSNR of Lugmayr et al. 2020 ("SRFlow", section 5)."""
    image_CHW, reference_CHW = (resized(x, size_px, "bicubic") for x in (image_CHW, reference_CHW))
    coarse_px = Size(*(max(1, side // COARSE_FACTOR) for side in size_px))
    return Consistency(
        size_px=size_px,
        psnr_db=psnr_db(image_CHW, reference_CHW),
        ssim=ssim(image_CHW, reference_CHW),
        coarse_ssim=ssim(*(resized(x, coarse_px, "bicubic") for x in (image_CHW, reference_CHW))),
        error_HW=_local_mean((image_CHW - reference_CHW).abs_().mean(dim=0)),
    )


def color_drift(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> ColorDrift:
    """The colours' drift in cells of 32 px of the image, each the mean with its neighbours (a triangle)."""
    cells = Size(*(max(1, round(side / COLOR_CELL_PX)) for side in image_CHW.shape[1:]))
    # float64 on the CPU: some devices have none, and cells are few
    image_CHW, reference_CHW = (resized(x, cells, "bilinear").cpu().double() for x in (image_CHW, reference_CHW))
    difference_N = ciede2000(*(lab_of_srgb(x.flatten(1)) for x in (image_CHW, reference_CHW)))
    red, green, blue = (float(shift) for shift in (image_CHW - reference_CHW).mean(dim=(1, 2)) * 255)
    return ColorDrift(
        mean=difference_N.mean().item(),
        p95=difference_N.quantile(0.95).item(),
        shift_u8=(red, green, blue),
        difference_HW=difference_N.view(*cells).float(),
    )


def _local_mean(map_HW: torch.Tensor) -> torch.Tensor:
    reach = ERROR_WINDOW_PX // 2
    return F.avg_pool2d(map_HW[None, None], ERROR_WINDOW_PX, stride=1, padding=reach, count_include_pad=False)[0, 0]


def resized(image_CHW: torch.Tensor, size_px: Size, mode: str) -> torch.Tensor:
    """The picture at another size by an antialiasing filter, "bilinear" or "bicubic", clamped to [0, 1]."""
    if Size(*image_CHW.shape[1:]) == size_px:
        return image_CHW
    return F.interpolate(image_CHW.unsqueeze(0), tuple(size_px), mode=mode, antialias=True)[0].clamp_(0, 1)
