"""PSNR and SSIM of pictures, in the conventions that papers use, computed by the core in float64. Pictures are float32 (3, H, W)
RGB in [0, 1].

Two numbers of the same name differ by up to several dB where one is taken over RGB and the other over a luma, so every function
here is one convention, and `catalogue.py` says which name stands for which.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from faithdiff_core.fidelity import ssim as fidelity

Y_WEIGHTS, Y_OFFSET = (65.481 / 255, 128.553 / 255, 24.966 / 255), 16 / 255
"""ITU-R BT.601, studio range 16..235: the Y of YCbCr that BasicSR's `test_y_channel` takes."""
YIQ_WEIGHTS = (0.299, 0.587, 0.114)
"""The Y of YIQ, full range: pyiqa's default (`utils/color_util.py`, rgb2yiq)."""


def psnr_db(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """Peak signal-to-noise ratio over all channels given, for a data range of 1; infinity for equal pictures."""
    return fidelity.psnr_db(image_CHW.double(), reference_CHW.double())


def ssim(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """Mean structural similarity over channels and the positions where the whole window fits.

    Raises:
        ValueError: a picture smaller than the window.
    """
    return ssim_map(image_CHW, reference_CHW).mean().item()


def psnr_y_db(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """PSNR of the Y of YCbCr (BT.601, studio range, not rounded), peak 255 of 255."""
    return psnr_db(y_of_ycbcr(image_CHW), y_of_ycbcr(reference_CHW))


def ssim_y(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """SSIM of the Y of YCbCr (BT.601, studio range, not rounded), data range 255 of 255."""
    return ssim(y_of_ycbcr(image_CHW), y_of_ycbcr(reference_CHW))


def ssim_yiq(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
    """Pyiqa's `ssim`: the Y of YIQ rounded to whole steps of 1/255, negative values counted as 0.

    pyiqa clips the contrast-structure factor; the luminance factor is positive, so clipping the product is the same.
    """
    return ssim_map(y_of_yiq(image_CHW), y_of_yiq(reference_CHW)).clamp(min=0).mean().item()


def y_of_ycbcr(image_CHW: torch.Tensor) -> torch.Tensor:
    """float64 (1, H, W) in [16/255, 235/255]."""
    return _weighted(image_CHW, Y_WEIGHTS) + Y_OFFSET


def y_of_yiq(image_CHW: torch.Tensor) -> torch.Tensor:
    """float64 (1, H, W) in [0, 1], whole steps of 1/255."""
    return (_weighted(image_CHW, YIQ_WEIGHTS) * 255.0).round() / 255.0


def ssim_map(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> torch.Tensor:
    """Mean SSIM over channels at every position where the whole window fits, float64 (H - 10, W - 10) in [-1, 1].

    Raises:
        ValueError: a picture smaller than the window.
    """
    height_px, width_px = image_CHW.shape[1:]
    if min(height_px, width_px) < fidelity.SSIM_WINDOW_PX:
        raise ValueError(
            f"expected at least {fidelity.SSIM_WINDOW_PX} px at each side, got {width_px} x {height_px}, leave it out"
        )
    return torch.cat(list(fidelity.ssim_strips(image_CHW.double(), reference_CHW.double())))


def _weighted(image_CHW: torch.Tensor, weights: tuple[float, float, float]) -> torch.Tensor:
    scale = torch.tensor(weights, dtype=torch.float64, device=image_CHW.device)
    return (image_CHW.double() * scale[:, None, None]).sum(dim=0, keepdim=True)


OWN: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {
    "psnr_rgb": psnr_db, "psnr_y": psnr_y_db, "ssim_rgb": ssim, "ssim_y": ssim_y, "ssim_yiq": ssim_yiq,
}  # fmt: skip
"""(picture, reference), both (3, H, W) in [0, 1], to the value."""
