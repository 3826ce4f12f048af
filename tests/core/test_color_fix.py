"""The colour fix against the release's formulas on whole images."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core import color_fix
from comfyui_faithdiff.faithdiff_core.color_fix import adain, fix_colors, low_frequencies, wavelet
from support.compare import ONE_MODULE, assert_close


def pictures(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(height))
    return noise[:2], 0.3 + 0.4 * noise[2:]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (64, 40), (97, 33), (161, 20)])
def test_wavelet_in_strips_is_that_of_the_whole_image(size, monkeypatch):
    """High frequencies of one, low ones of the other (official utils/color_fix.py:106-120)."""
    monkeypatch.setattr(color_fix, "STRIP_ROWS", 32)
    image, reference = pictures(*size)
    whole = image - low_frequencies(image) + low_frequencies(reference)
    assert_close(wavelet(image, reference), whole, ONE_MODULE)


def test_wavelet_sees_no_further_than_its_strips_reach():
    image = torch.zeros(1, 1, 101, 1)
    image[..., 50, 0] = 1.0
    rows = low_frequencies(image)[0, 0, :, 0].nonzero().flatten()
    assert 50 - rows[0] == rows[-1] - 50 == color_fix.WAVELET_REACH_PX


def test_adain_gives_the_references_mean_and_deviation():
    image, reference = pictures(40, 50)
    fixed = adain(image, reference)
    assert_close(fixed.mean(dim=(2, 3)), reference.mean(dim=(2, 3)), ONE_MODULE)
    before, wanted, eps = image.var(dim=(2, 3)), reference.var(dim=(2, 3)), color_fix.ADAIN_VARIANCE_EPS  # which both get
    assert_close(fixed.var(dim=(2, 3)), (wanted + eps) * before / (before + eps), ONE_MODULE)


@pytest.mark.parametrize("method", color_fix.METHODS)
def test_what_comes_in_is_not_changed(method):
    image, reference = pictures(40, 50)
    before = image.clone(), reference.clone()
    fixed = fix_colors(image, reference, method)
    assert torch.equal(image, before[0])
    assert torch.equal(reference, before[1])
    assert fixed.min() >= 0.0
    assert fixed.max() <= 1.0
