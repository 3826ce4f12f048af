"""The figures of a fidelity report: against scikit-image, against published pairs of colours, and on pictures made for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.colors.lab import lab_of_srgb
from comfyui_faithdiff.faithdiff_core.fidelity import heat_map
from comfyui_faithdiff.faithdiff_core.fidelity import ssim as fidelity_ssim
from comfyui_faithdiff.faithdiff_core.fidelity.color import ciede2000
from comfyui_faithdiff.faithdiff_core.fidelity.consistency import COARSE_FACTOR, color_drift, compared_size, consistency
from comfyui_faithdiff.faithdiff_core.fidelity.heat_map import colors, draw
from comfyui_faithdiff.faithdiff_core.fidelity.seams import find_seams, seam_map
from comfyui_faithdiff.faithdiff_core.fidelity.ssim import psnr_db, ssim, ssim_strips
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.faithdiff_core.tiling import tile_boxes
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from support.compare import FIGURE, ONE_MODULE, assert_close

# Sharma, Wu and Dalal 2005, table 1: Lab, Lab, and their difference
PUBLISHED = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0009), 7.1792),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


def picture(height: int, width: int, seed: int = 0, cell_px: int = 8) -> torch.Tensor:
    """A smooth random picture (3, H, W)."""
    small = torch.rand(1, 3, height // cell_px + 2, width // cell_px + 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic")[0].clamp(0, 1)


def noise(like: torch.Tensor, seed: int = 1) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


FLAT = 3e-4
"""As compare.FIGURE, for the SSIM of a flat picture: its variances are small differences of large moments. Measured: 3.0e-5; with
K2 of 0.031 it would be 6e-3 away."""


@pytest.mark.parametrize("seed", range(20))
def test_psnr_and_ssim_are_scikit_images(seed, monkeypatch):
    monkeypatch.setattr(fidelity_ssim, "STRIP_ROWS", 16)
    a = picture(40 + 3 * seed, 61 - 2 * seed, seed) if seed else torch.full((3, 40, 30), 0.9)
    b = (a + 0.01 * (seed + 1) * noise(a, seed)).clamp(0, 1)
    x, y = (t.permute(1, 2, 0).double().numpy() for t in (a, b))
    assert psnr_db(a, b) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1.0), rel=FIGURE)
    theirs = structural_similarity(
        x, y, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(theirs, rel=FIGURE if seed else FLAT)


def test_strips_of_the_map_are_the_map_of_the_whole(monkeypatch):
    a, b = picture(75, 40), picture(75, 40, seed=1)
    (whole,) = ssim_strips(a, b)
    monkeypatch.setattr(fidelity_ssim, "STRIP_ROWS", 9)
    assert_close(torch.cat(list(ssim_strips(a, b))), whole, ONE_MODULE)
    assert whole.shape == (65, 30)


def test_equal_and_small_pictures():
    a = picture(11, 11)
    assert psnr_db(a, a) == math.inf and ssim(a, a) == pytest.approx(1.0, abs=1e-6)
    assert ssim(a[:, :10], a[:, :10]) is None and psnr_db(a[:, :1, :1], a[:, :1, :1] + 0.1) == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize(("one", "other", "expected"), PUBLISHED)
def test_published_color_differences(one, other, expected):
    a, b = (torch.tensor(lab, dtype=torch.float64).unsqueeze(1) for lab in (one, other))
    assert ciede2000(a, b).item() == pytest.approx(expected, abs=1e-4) == ciede2000(b, a).item()


def test_color_differences_are_scikit_images():
    rgb = torch.rand(2, 3, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rgb[1, :, :100] = rgb[0, :, :100]
    rgb[:, 1:, 100:150] = rgb[:, :1, 100:150]  # greys have no hue
    ours = ciede2000(lab_of_srgb(rgb[0]), lab_of_srgb(rgb[1]))
    labs = [rgb2lab(t.T.numpy()) for t in rgb]
    np.testing.assert_allclose(lab_of_srgb(rgb[0]).T, labs[0], atol=0.02)
    np.testing.assert_allclose(ours, deltaE_ciede2000(*labs), atol=0.02)
    assert ours[:100].max() == 0


@pytest.mark.parametrize(
    ("image", "reference", "scale", "expected"),
    [
        (Size(512, 256), Size(128, 64), 0, Size(128, 64)),
        (Size(512, 256), Size(512, 256), 0, Size(128, 64)),  # enlarged already: the release's 4
        (Size(512, 256), Size(512, 256), 1, Size(512, 256)),
        (Size(512, 256), Size(256, 128), 8, Size(64, 32)),
        (Size(338, 512), Size(148, 224), 0, Size(148, 224)),  # rounded by FaithDiff Upscale To Target
        (Size(512, 256), Size(1024, 512), 2, Size(256, 128)),
        (Size(2, 3), Size(2, 3), 0, Size(1, 1)),
    ],
)
def test_where_they_are_compared(image, reference, scale, expected):
    assert compared_size(image, reference, scale) == expected


def test_what_cannot_be_compared_is_told():
    with pytest.raises(ValueError, match="of the shape of the image, 256x512 px, got 64x140"):
        compared_size(Size(512, 256), Size(140, 64), 0)
    with pytest.raises(ValueError, match="at least 4 for an image of 256x512 px and a reference of 64x128, got 2"):
        compared_size(Size(512, 256), Size(128, 64), 2)
    with pytest.raises(ValueError, match="at least 1 .* got 0.5"):
        compared_size(Size(64, 64), Size(64, 64), 0.5)


def test_consistency_forgives_detail_and_noise_but_not_another_scene():
    size = Size(96, 128)
    truth = picture(384, 512, cell_px=48)
    detail = 0.05 * torch.sin(torch.arange(512) * math.pi / 2 * 1.5)  # finer than the reference's pixels
    clean = consistency(truth, truth, size)
    reference = torch.nn.functional.interpolate(truth[None], tuple(size), mode="bicubic", antialias=True)[0]
    noisy = consistency(truth, (reference + 0.1 * noise(reference)).clamp(0, 1), size)
    other = consistency(picture(384, 512, seed=5, cell_px=48), reference, size)
    assert clean.psnr_db == math.inf and clean.coarse_ssim == pytest.approx(1.0, abs=1e-6)
    assert consistency((truth + detail).clamp(0, 1), reference, size).psnr_db > 40
    assert noisy.ssim < 0.7 and noisy.coarse_ssim > 0.95
    assert other.coarse_ssim < 0.75
    assert clean.error_HW.shape == size and other.error_HW.mean() > 10 * clean.error_HW.max()
    small = consistency(truth, reference, Size(11 * COARSE_FACTOR - 1, 60))
    assert small.coarse_ssim is None and small.ssim is not None


def test_drift_is_that_of_coarse_color():
    image = picture(256, 320, cell_px=64) * 0.8 + 0.1
    shifted = image + torch.tensor([8.0, 0.0, -4.0]).view(3, 1, 1) / 255
    drift = color_drift(shifted, image)
    assert drift.shift_u8 == pytest.approx((8.0, 0.0, -4.0), abs=0.01)
    assert 1.0 < drift.mean < drift.p95 < 6.0
    assert drift.difference_HW.shape == (8, 10)
    checker = ((torch.arange(320) + torch.arange(256)[:, None]) % 2 - 0.5) * 0.2  # no color of its own
    assert color_drift(image + checker, image).p95 < 0.2
    assert color_drift(image, torch.nn.functional.avg_pool2d(image, 4)).p95 < 0.2  # a reference as it was loaded


def stepped(image: torch.Tensor, boxes, step: float) -> torch.Tensor:
    """With hard borders: every tile is brighter or darker by `step`, in turn."""
    image = image.clone()
    for i, box in enumerate(boxes):
        rows, columns = slice(8 * box.top, 8 * (box.top + box.height)), slice(8 * box.left, 8 * (box.left + box.width))
        image[:, rows, columns] += step * (1 - 2 * ((box.top // box.height + i) % 2))
    return image


@pytest.mark.parametrize("kind", ["flat", "gradient", "texture"])
def test_seams_are_found_where_there_are_seams(kind):
    boxes = tile_boxes(Size(48, 64), 16, 0.0)
    image = {
        "flat": torch.full((3, 384, 512), 0.5),
        "gradient": torch.linspace(0.2, 0.8, 512).expand(3, 384, -1),
        "texture": picture(384, 512) * 0.8 + 0.1,
    }[kind]
    image = image + 0.01 * noise(image) * (kind == "texture")
    without = find_seams(image, boxes)
    assert without.ratio == pytest.approx(1.0, abs=0.15) and abs(without.z_score) < 3
    with_seams = find_seams(stepped(image, boxes, 8 / 255), boxes)
    assert with_seams.ratio > 1.3 and with_seams.z_score > 3
    assert len(without.borders) == 5 and {b.line_px for b in without.borders if b.is_row} == {128, 256}


def test_an_edge_of_the_picture_on_a_border_is_no_seam():
    image = picture(512, 512) * 0.5 + 0.01 * noise(torch.zeros(3, 512, 512)) + 0.1
    image[:, 256:] += 0.3
    found = find_seams(image, tile_boxes(Size(64, 64), 32, 0.5))  # borders at 128, 256 and 384 px, both ways
    assert len(found.borders) == 6 and found.z_score < 3


def test_where_seams_cannot_be_measured():
    assert find_seams(picture(64, 64), [*tile_boxes(Size(8, 8), 1, 0.0)]).ratio is None  # nothing between the borders
    assert find_seams(picture(7, 7), [*tile_boxes(Size(1, 1), 1, 0.0)]).ratio is None


def test_the_map_of_seams_marks_the_borders():
    boxes = tile_boxes(Size(16, 24), 8, 0.0)
    marked = seam_map(find_seams(picture(128, 192), boxes), Size(128, 192))
    rows, columns = (marked > 0).all(dim=1).nonzero().flatten(), (marked > 0).all(dim=0).nonzero().flatten()
    assert rows.tolist() == [63, 64] and columns.tolist() == [63, 64, 127, 128]


def test_lightness_rises_with_the_number():
    lightness = lab_of_srgb(colors().double().T)[0]
    steps = lightness.diff()
    assert (steps > 0).all() and lightness[0] < 20 and lightness[-1] > 85
    points = lightness[:: (heat_map.COLORS - 1) // (len(heat_map.POINTS) - 1)].diff()
    assert points.max() < 1.3 * points.min()


def test_a_map_is_drawn_over_grey(monkeypatch):
    monkeypatch.setattr(heat_map, "STRIP_ROWS", 7)
    numbers = torch.linspace(-1, 2, 40).expand(30, -1)
    out = torch.empty(30, 40, 3)
    draw(numbers, torch.full((3, 30, 40), 0.5), out)
    share = heat_map.COLOR_SHARE
    for column, color in ((0, colors()[0]), (-1, colors()[-1])):
        assert_close(out[:, column], (share * color + (1 - share) * 0.5).expand(30, -1), ONE_MODULE)
    assert out.min() >= 0 and out.max() <= 1
