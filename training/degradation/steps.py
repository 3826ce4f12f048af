"""Single steps of the degradation. Images are float32 (3, H, W) in [0, 1]; every draw comes from the generator given."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from training.common.images import unit_to_u8

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of R, G and B."""


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
    with Image.open(io.BytesIO(buffer.getvalue())) as decoded:
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
