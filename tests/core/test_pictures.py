"""Padding and colour correction against closed forms."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from comfyui_faithdiff.faithdiff_core import color_fix, geometry
from comfyui_faithdiff.faithdiff_core.geometry import Size
from support.compare import ONE_MODULE, assert_close


def picture(height, width, batch=1, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [Size(1, 1), Size(8, 8), Size(9, 15), Size(250, 131)])
def test_pad_repeats_the_edge_and_crop_undoes_it(size):
    image = picture(*size)
    padded = geometry.pad_to_latent_cells(image)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert max(padded.shape[-2] - size.height, padded.shape[-1] - size.width) < 8
    assert torch.equal(geometry.crop_to(padded, size), image)
    assert torch.equal(padded[..., -1, : size.width], image[..., -1, :])
    assert geometry.latent_size(size) == Size(padded.shape[-2] // 8, padded.shape[-1] // 8)


def test_adain_moves_mean_and_deviation_per_image():
    image, reference = picture(40, 50, 2), 0.3 + 0.2 * picture(40, 50, 2, seed=1)
    fixed = color_fix.adain(image, reference)
    assert_close(fixed.mean(dim=(2, 3)), reference.mean(dim=(2, 3)), ONE_MODULE)
    before, wanted, eps = image.var(dim=(2, 3)), reference.var(dim=(2, 3)), color_fix.ADAIN_VARIANCE_EPS  # which both get
    assert_close(fixed.var(dim=(2, 3)), (wanted + eps) * before / (before + eps), ONE_MODULE)
    assert_close(fixed[1:], color_fix.adain(image[1:], reference[1:]), ONE_MODULE)


def test_wavelet_low_frequencies_are_the_references():
    image, reference = picture(96, 64), picture(96, 64, seed=1)
    fixed = color_fix.wavelet(image, reference)
    assert_close(fixed - color_fix.low_frequencies(reference), image - color_fix.low_frequencies(image), ONE_MODULE)


def test_blur_is_the_published_3x3_kernel():
    """The official kernel as one dilated 3x3 convolution; ours runs it as two 1-D ones."""
    image = picture(33, 41)
    taps = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    expected = image
    for level in range(color_fix.WAVELET_LEVELS):
        r = 2**level
        expected = F.conv2d(F.pad(expected, (r,) * 4, mode="replicate"), taps.expand(3, 1, 3, 3), groups=3, dilation=r)
    assert_close(color_fix.low_frequencies(image), expected, ONE_MODULE)


def test_same_picture_stays_and_range_is_kept():
    image = picture(20, 20)
    assert_close(color_fix.fix_colors(image, image, "adain"), image, ONE_MODULE)
    assert_close(color_fix.fix_colors(image, image, "wavelet"), image, ONE_MODULE)
    assert color_fix.fix_colors(image, image, "none") is image
    fixed = color_fix.fix_colors(image, (image > 0.5).float(), "adain")
    assert fixed.min() >= 0 and fixed.max() <= 1
    assert torch.isfinite(color_fix.fix_colors(torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), "adain")).all()


def test_refusals():
    with pytest.raises(ValueError, match=re.escape(f"{', '.join(color_fix.METHODS)}, got 'sepia'")):
        color_fix.fix_colors(picture(8, 8), picture(8, 8), "sepia")
    with pytest.raises(ValueError, match=r"shape \(1, 3, 8, 8\), got \(1, 3, 8, 9\)"):
        color_fix.fix_colors(picture(8, 8), picture(8, 9), "adain")
