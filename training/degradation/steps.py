"""Single steps of the degradation, and the kernels of its blurs. Images are float32 (3, H, W) in [0, 1], kernels (size, size)
float32 with sum 1; every draw comes from the generator given. Shapes of the kernels' families: Real-ESRGAN paper, section 3.1.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from training.common.images import open_picture, unit_to_u8

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of R, G and B."""


def grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X and y of every cell, in px from the centre, float64 (size, size). `size` is odd."""
    assert size % 2 == 1, size
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def squared_distance(size: int, sigma_x_px: float, sigma_y_px: float, angle_rad: float) -> torch.Tensor:
    """v^T S^-1 v, where S has the axes sigma_x and sigma_y turned by `angle_rad`; float64 (size, size)."""
    x, y = grid(size)
    along = x * math.cos(angle_rad) + y * math.sin(angle_rad)
    across = -x * math.sin(angle_rad) + y * math.cos(angle_rad)
    return (along / sigma_x_px) ** 2 + (across / sigma_y_px) ** 2


def gaussian_kernel(size: int, sigma_x_px: float, sigma_y_px: float, angle_rad: float = 0.0, beta: float = 1.0) -> torch.Tensor:
    """exp(-d^(2 beta) / 2); beta 1 is the Gaussian, others the generalised one."""
    kernel = torch.exp(-0.5 * squared_distance(size, sigma_x_px, sigma_y_px, angle_rad) ** beta)
    return (kernel / kernel.sum()).float()


def plateau_kernel(size: int, sigma_x_px: float, sigma_y_px: float, angle_rad: float, beta: float) -> torch.Tensor:
    """1 / (1 + d^(2 beta)): flat in the middle."""
    kernel = 1.0 / (1.0 + squared_distance(size, sigma_x_px, sigma_y_px, angle_rad) ** beta)
    return (kernel / kernel.sum()).float()


def sinc_kernel(size: int, cutoff_rad: float) -> torch.Tensor:
    """Circular low-pass filter w J1(w r) / (2 pi r), the cause of ringing. `cutoff_rad` w in (0, pi]."""
    x, y = grid(size)
    radius = torch.sqrt(x * x + y * y)
    centre = size // 2
    radius[centre, centre] = 1.0
    kernel = cutoff_rad * torch.special.bessel_j1(cutoff_rad * radius) / (2 * math.pi * radius)
    kernel[centre, centre] = cutoff_rad**2 / (4 * math.pi)  # the limit for r -> 0
    return (kernel / kernel.sum()).float()


def blur(image_CHW: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Filter every channel with `kernel` (k, k), the border reflected (repeated where the picture is smaller than the kernel).

    By FFT: the same as a direct convolution within 1e-6, and 4 to 16 times as fast on a CPU core at 512 px for k 7 to 21.
    """
    pad = kernel.shape[-1] // 2
    mode = "reflect" if min(image_CHW.shape[1:]) > pad else "replicate"
    padded = F.pad(image_CHW[:, None], (pad, pad, pad, pad), mode=mode)[:, 0]
    # The wrap of a circular convolution reaches only what is cut off, whatever the transform's size.
    extent = (_fft_size(padded.shape[1]), _fft_size(padded.shape[2]))
    spectrum = torch.fft.rfft2(padded, s=extent) * torch.fft.rfft2(kernel.to(image_CHW), s=extent).conj()
    return torch.fft.irfft2(spectrum, s=extent)[:, : image_CHW.shape[1], : image_CHW.shape[2]].contiguous()


def _fft_size(least: int) -> int:
    """The next number that has no prime factors but 2, 3 and 5: others transform slowly."""
    rest = least
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return least if rest == 1 else _fft_size(least + 1)


def resize(image_CHW: torch.Tensor, size_HW_px: tuple[int, int], mode: str) -> torch.Tensor:
    """Resize by "area", "bilinear", "bicubic" or "nearest-exact", without anti-aliasing, as the official code does."""
    if tuple(image_CHW.shape[1:]) == tuple(size_HW_px):
        return image_CHW
    size = (max(size_HW_px[0], 1), max(size_HW_px[1], 1))
    return F.interpolate(image_CHW[None], size=size, mode=mode)[0]


def gaussian_noise(image_CHW: torch.Tensor, sigma_u8: float, gray: bool, generator: torch.Generator) -> torch.Tensor:
    """Add normal noise of standard deviation sigma_u8 / 255; `gray`: the same in all channels."""
    shape = (1, *image_CHW.shape[1:]) if gray else tuple(image_CHW.shape)
    noise = torch.randn(shape, generator=generator).to(image_CHW)
    return image_CHW + noise * (sigma_u8 / 255.0)


def poisson_noise(image_CHW: torch.Tensor, scale: float, gray: bool, generator: torch.Generator) -> torch.Tensor:
    """Add `scale` times shot noise. The photon count of white is the number of distinct 8-bit values, rounded up to a power of
    two.
    """
    base = image_CHW
    if gray:
        base = (image_CHW * torch.tensor(LUMA).to(image_CHW)[:, None, None]).sum(0, keepdim=True)
    base_u8 = unit_to_u8(base)
    distinct = int(torch.bincount(base_u8.flatten(), minlength=256).count_nonzero())
    levels = 2 ** math.ceil(math.log2(max(distinct, 2)))
    base = base_u8.float() / 255.0
    noise = torch.poisson(base.cpu() * levels, generator=generator).to(base) / levels - base
    return image_CHW + noise * scale


def jpeg_pillow(image_CHW: torch.Tensor, quality: int) -> torch.Tensor:
    """Through a real JPEG encoder (4:2:0 chroma, Pillow's default) and back."""
    pixels = unit_to_u8(image_CHW).permute(1, 2, 0).cpu().contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, format="JPEG", quality=quality)
    with open_picture(buffer, "the compressed picture") as decoded:  # not by Pillow's limit: sources may be larger
        array = np.array(decoded.convert("RGB"))
    return (torch.from_numpy(array).permute(2, 0, 1).float() / 255.0).to(image_CHW)


def jpeg_torch(image_CHW: torch.Tensor, quality: float) -> torch.Tensor:
    """The same by kornia's codec, on the tensor's own device (its rounding is smooth, so values differ slightly)."""
    from kornia.enhance import jpeg_codec_differentiable

    height_px, width_px = image_CHW.shape[1:]
    padded = F.pad(image_CHW[None], (0, -width_px % 16, 0, -height_px % 16), mode="replicate")
    coded = jpeg_codec_differentiable(padded.clamp(0, 1), torch.tensor([float(quality)]).to(image_CHW))
    return coded[0, :, :height_px, :width_px]


def jpeg(image_CHW: torch.Tensor, quality: int) -> torch.Tensor:
    """JPEG round trip: a real encoder on the CPU, kornia's elsewhere (no copy to the host and back)."""
    return jpeg_pillow(image_CHW, quality) if image_CHW.device.type == "cpu" else jpeg_torch(image_CHW, quality)
