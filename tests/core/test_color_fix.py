"""The colour fix against the release's formulas on whole images."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core import color_fix
from comfyui_faithdiff.faithdiff_core.color_fix import adain, fix_colors, low_frequencies, wavelet


def pictures(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(height))
    return noise[:2], 0.3 + 0.4 * noise[2:]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (64, 40), (97, 33), (161, 20)])
def test_wavelet_in_strips_is_that_of_the_whole_image(size, monkeypatch):
    """High frequencies of one, low ones of the other (official utils/color_fix.py:106-120)."""
    monkeypatch.setattr(color_fix, "STRIP_ROWS", 32)
    image, reference = pictures(*size)
    whole = image - low_frequencies(image) + low_frequencies(reference)
    torch.testing.assert_close(wavelet(image, reference), whole, rtol=0, atol=1e-6)


def test_wavelet_sees_no_further_than_its_strips_reach():
    image = torch.zeros(1, 1, 101, 1)
    image[..., 50, 0] = 1.0
    rows = low_frequencies(image)[0, 0, :, 0].nonzero().flatten()
    assert 50 - rows[0] == rows[-1] - 50 == color_fix.WAVELET_REACH_PX


def test_adain_gives_the_references_mean_and_deviation():
    image, reference = pictures(40, 50)
    fixed = adain(image, reference)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(fixed, dim=(2, 3)), statistic(reference, dim=(2, 3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", color_fix.METHODS)
def test_what_comes_in_is_not_changed(method):
    image, reference = pictures(40, 50)
    before = image.clone(), reference.clone()
    fixed = fix_colors(image, reference, method)
    assert torch.equal(image, before[0])
    assert torch.equal(reference, before[1])
    assert fixed.min() >= 0.0
    assert fixed.max() <= 1.0
