"""The colour fixes beyond the release's: CIE Lab there and back, statistics in strips, and what each promises."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.color_fix import METHODS, adain, fix_colors, low_frequencies, wavelet_adain
from comfyui_faithdiff.faithdiff_core.colors import strips
from comfyui_faithdiff.faithdiff_core.colors.lab import lab_of_srgb, srgb_of_lab
from comfyui_faithdiff.faithdiff_core.colors.levels import stretch_levels
from comfyui_faithdiff.faithdiff_core.colors.statistics import match_lab
from skimage.color import lab2rgb
from support.compare import ONE_MODULE, assert_close

STRIPPED = {"match_lab": match_lab, "stretch_levels": lambda image, _: stretch_levels(image)}


def pictures(height: int = 40, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(height))
    return noise[:2], 0.3 + 0.4 * noise[2:]


def test_lab_there_and_back():
    grid = torch.linspace(0, 1, 12)
    rgb = torch.cartesian_prod(grid, grid, grid).T
    lab = lab_of_srgb(rgb)
    assert_close(srgb_of_lab(lab), rgb, ONE_MODULE)
    inside = torch.from_numpy(lab2rgb(lab.T.numpy().astype(np.float64))).T
    assert (srgb_of_lab(lab.double()) - inside).abs().max() < 1e-3  # its matrix has fewer digits


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("none", "neutral")])
def test_the_reference_itself_stays_as_it_is(method):
    image, _ = pictures()
    assert_close(fix_colors(image, image, method), image, ONE_MODULE)


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_does_not_depend_on_the_others_of_its_batch(method):
    image, reference = pictures()
    both = fix_colors(image.clone(), reference, method)
    assert_close(fix_colors(image[1:].clone(), reference[1:], method), both[1:], ONE_MODULE)


@pytest.mark.parametrize("method", METHODS)
def test_greys_stay_grey_and_flat_pictures_are_no_error(method):
    for image, reference in ((pictures()[0][:, :1], pictures()[1][:, :1]), (torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3))):
        fixed = fix_colors(image.repeat(1, 3, 1, 1), reference.repeat(1, 3, 1, 1), method)
        assert torch.isfinite(fixed).all() and fixed.min() >= 0 and fixed.max() <= 1
        assert (fixed.amax(dim=1) - fixed.amin(dim=1)).max() < 1e-4


@pytest.mark.parametrize("fix", STRIPPED.values(), ids=STRIPPED)
def test_strips_give_what_the_whole_picture_gives(fix, monkeypatch):
    image, reference = pictures(97, 20)
    whole = fix(image, reference)
    monkeypatch.setattr(strips, "STRIP_ROWS", 16)
    assert len(list(strips.strips(97))) == 7
    assert_close(fix(image, reference), whole, ONE_MODULE)


def test_lab_gives_the_references_mean_and_deviation():
    image, reference = pictures()
    image = 0.35 + 0.3 * image  # so that no colour of the result is out of sRGB
    fixed, wanted = (lab_of_srgb(x[0].flatten(1)) for x in (match_lab(image, reference), reference))
    assert_close(fixed.mean(dim=1), wanted.mean(dim=1), ONE_MODULE)
    assert ((fixed.std(dim=1) / wanted.std(dim=1)) - 1).abs().max() < 2e-3  # the variances' eps


def test_hsv_takes_hue_and_saturation_from_the_reference_and_value_from_the_image():
    image, reference = pictures(4, 5)
    fixed = fix_colors(image, reference, "hsv")
    for result, given, wanted in zip(*(x[0].flatten(1).T.tolist() for x in (fixed, image, reference)), strict=True):
        hue, saturation, _ = colorsys.rgb_to_hsv(*wanted)
        assert colorsys.rgb_to_hsv(*result) == pytest.approx((hue, saturation, max(given)), abs=1e-4)
    black = fix_colors(image, torch.zeros_like(image), "hsv")
    assert torch.equal(black, image.amax(dim=1, keepdim=True).expand_as(image))


def test_wavelet_adain_keeps_every_places_colours_and_scales_the_detail():
    image, reference = pictures(80, 80)
    fixed = wavelet_adain(0.4 + 0.2 * image, reference)
    scaled = adain(0.4 + 0.2 * image, reference)
    assert_close(fixed, scaled - low_frequencies(scaled) + low_frequencies(reference), ONE_MODULE)
    detail, wanted = ((x - low_frequencies(x)).std() for x in (fixed, reference))
    assert abs(detail / wanted - 1) < 0.05  # wavelet alone: a third of it


def test_neutral_takes_a_cast_away_and_leaves_a_full_range():
    truth, _ = pictures(60, 60)
    black, white = (torch.tensor(ends).reshape(1, 3, 1, 1) for ends in ((0.28, 0.19, 0.10), (0.96, 0.86, 0.64)))
    faded = black + (white - black) * truth
    assert (fix_colors(faded, faded, "neutral") - truth).abs().mean() < 0.005 < 0.1 < (faded - truth).abs().mean()
    one_speck = 0.4 + 0.2 * truth
    one_speck[..., 0, 0] = 1.0
    fixed = fix_colors(one_speck, one_speck, "neutral")
    assert fixed.amax(dim=(2, 3)).min() == 1.0 and (fixed - truth).abs().mean() < 0.01
