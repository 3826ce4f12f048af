"""Single steps of the degradation against closed forms and against Pillow."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from support.compare import CHANGED, ONE_MODULE, assert_close, relative_difference
from support.trainer import picture

from faithdiff_core.photo import read
from training.common.images import unit_to_u8
from training.degradation import steps
from training.metrics.own import psnr_db


def ramp_picture(side_px: int = 64) -> torch.Tensor:
    x = torch.linspace(0.1, 0.9, side_px)
    return torch.stack([x.expand(side_px, -1), x.expand(side_px, -1).T, 0.5 * torch.ones(side_px, side_px)])


@pytest.mark.parametrize("size", [7, 13, 21])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: steps.gaussian_kernel(size, 1.3, 1.3),
        lambda size: steps.gaussian_kernel(size, 0.4, 2.5, 0.7),
        lambda size: steps.gaussian_kernel(size, 1.0, 2.0, -2.0, beta=0.6),
        lambda size: steps.gaussian_kernel(size, 1.0, 1.0, 0.0, beta=3.5),
        lambda size: steps.plateau_kernel(size, 1.0, 2.0, 0.3, 1.7),
        lambda size: steps.sinc_kernel(size, math.pi / 3),
        lambda size: steps.sinc_kernel(size, 3.0),
    ],
)
def test_every_kernel_sums_to_one_and_is_centred(make, size: int) -> None:
    kernel = make(size).double()
    assert kernel.shape == (size, size)
    assert abs(kernel.sum().item() - 1) < 1e-6
    assert_close(kernel, kernel.flip(0, 1), ONE_MODULE)  # a kernel without point symmetry shifts the picture


def test_isotropic_kernels_are_isotropic_and_others_are_not() -> None:
    for kernel in (
        steps.gaussian_kernel(21, 2.0, 2.0, 0.9),
        steps.plateau_kernel(21, 2.0, 2.0, 0.4, 1.5),
        steps.sinc_kernel(21, 1.5),
    ):
        assert_close(kernel, torch.rot90(kernel), ONE_MODULE)
    assert relative_difference(steps.gaussian_kernel(21, 1.0, 3.0), torch.rot90(steps.gaussian_kernel(21, 1.0, 3.0))) > CHANGED


def test_gaussian_kernel_has_the_variances_asked_for_along_its_axes() -> None:
    sigma_x, sigma_y, angle = 2.5, 1.2, 0.6
    kernel = steps.gaussian_kernel(41, sigma_x, sigma_y, angle).double()
    x, y = steps.grid(41)
    covariance = torch.tensor(
        [[(kernel * x * x).sum(), (kernel * x * y).sum()], [(kernel * x * y).sum(), (kernel * y * y).sum()]]
    )
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    expected = turn @ torch.diag(torch.tensor([sigma_x**2, sigma_y**2], dtype=torch.float64)) @ turn.T
    assert torch.allclose(covariance.double(), expected, atol=1e-3)


def test_sinc_passes_low_and_stops_high_frequencies() -> None:
    cutoff = math.pi / 3
    kernel = steps.sinc_kernel(21, cutoff).double()
    x, _ = steps.grid(21)
    gains = [(kernel * torch.cos(omega * x)).sum().item() for omega in (0.0, 0.5 * cutoff, 2.0 * cutoff)]
    assert gains[0] == pytest.approx(1.0, abs=1e-6)
    assert gains[1] == pytest.approx(1.0, abs=0.15)
    assert abs(gains[2]) < 0.1


@pytest.mark.parametrize("cutoff_rad", [math.pi / 5, 1.7, math.pi])
def test_sinc_is_the_disc_shaped_low_pass_of_its_bessel_form(cutoff_rad: float) -> None:
    # J1 by its integral, (1 / pi) * int_0^pi cos(t - x sin t) dt, not by the library's function.
    t = (torch.arange(2000, dtype=torch.float64) + 0.5) * math.pi / 2000
    x, y = steps.grid(13)
    radius = torch.hypot(x, y)
    bessel = torch.cos(t - cutoff_rad * radius[..., None] * torch.sin(t)).mean(-1)
    expected = cutoff_rad * bessel / (2 * math.pi * radius)
    expected[6, 6] = cutoff_rad**2 / (4 * math.pi)
    expected /= expected.sum()
    assert_close(steps.sinc_kernel(13, cutoff_rad), expected, ONE_MODULE)


@pytest.mark.parametrize("family", ["gaussian", "generalised", "plateau"])
def test_second_moments_tell_isotropic_kernels_from_others(family: str) -> None:
    def moments(sigma_x: float, sigma_y: float, angle: float) -> tuple[float, float, float]:
        if family == "plateau":
            kernel = steps.plateau_kernel(21, sigma_x, sigma_y, angle, 1.6).double()
        else:
            kernel = steps.gaussian_kernel(21, sigma_x, sigma_y, angle, 1.0 if family == "gaussian" else 0.7).double()
        x, y = steps.grid(21)
        return (kernel * x * x).sum().item(), (kernel * y * y).sum().item(), (kernel * x * y).sum().item()

    xx, yy, xy = moments(1.8, 1.8, 0.7)
    assert xx == pytest.approx(yy, rel=1e-4) and abs(xy) < 1e-4 * xx
    xx, yy, xy = moments(0.9, 1.8, 0.0)
    assert yy > 1.5 * xx and abs(xy) < 1e-4 * xx
    _, _, xy = moments(0.9, 1.8, math.pi / 4)
    assert xy < -0.1, "the long axis is turned against the short one"


def test_blur_keeps_a_constant_and_the_size() -> None:
    flat = torch.full((3, 30, 17), 0.37)
    for kernel in (steps.gaussian_kernel(21, 2.0, 1.0, 0.3), steps.sinc_kernel(13, 2.0)):
        assert_close(steps.blur(flat, kernel), flat, ONE_MODULE)
    assert steps.blur(torch.rand(3, 5, 4), steps.gaussian_kernel(21, 1.0, 1.0)).shape == (3, 5, 4)


def test_blur_is_the_convolution_of_its_kernel() -> None:
    impulse = torch.zeros(3, 41, 41)
    impulse[:, 20, 20] = 1
    kernel = steps.gaussian_kernel(9, 0.7, 2.0, 0.5)
    assert_close(steps.blur(impulse, kernel)[1, 16:25, 16:25], kernel.flip(0, 1), ONE_MODULE)


@pytest.mark.parametrize(("height_px", "width_px"), [(61, 47), (9, 80), (128, 128)])
@pytest.mark.parametrize("size", [7, 15, 21])
def test_blur_equals_the_direct_convolution(height_px: int, width_px: int, size: int) -> None:
    image = torch.rand(3, height_px, width_px, generator=torch.Generator().manual_seed(size))
    pad = size // 2
    mode = "reflect" if min(height_px, width_px) > pad else "replicate"
    for kernel in (steps.gaussian_kernel(size, 2.5, 0.6, 0.4), steps.sinc_kernel(size, 1.1)):
        padded = torch.nn.functional.pad(image[:, None].double(), (pad, pad, pad, pad), mode=mode)
        direct = torch.nn.functional.conv2d(padded, kernel.double()[None, None])[:, 0]
        assert_close(steps.blur(image, kernel), direct, ONE_MODULE)


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_has_its_standard_deviation(gray: bool) -> None:
    flat = torch.full((3, 200, 200), 0.5)
    noise = steps.gaussian_noise(flat, 12.0, gray, torch.Generator().manual_seed(0)) - flat
    assert noise.std().item() == pytest.approx(12 / 255, rel=0.02)
    assert abs(noise.mean().item()) < 5e-4
    assert torch.equal(noise[0], noise[1]) == gray


def test_poisson_noise_has_the_variance_of_counted_photons() -> None:
    # Two grey values in one picture: 2 distinct levels, so white is 2 photons, and the variance at v is v / 2.
    image = torch.full((3, 300, 300), 64 / 255)
    image[:, :, 150:] = 192 / 255
    noise = steps.poisson_noise(image, 1.0, False, torch.Generator().manual_seed(1)) - image
    assert noise[:, :, :150].var().item() == pytest.approx(64 / 255 / 2, rel=0.03)
    assert noise[:, :, 150:].var().item() == pytest.approx(192 / 255 / 2, rel=0.03)
    half = steps.poisson_noise(image, 0.5, False, torch.Generator().manual_seed(1)) - image
    assert_close(half, noise / 2, ONE_MODULE)


def test_jpeg_is_what_pillow_writes() -> None:
    image = picture(3)
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy(), "RGB").save(buffer, format="JPEG", quality=40)
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    got = unit_to_u8(steps.jpeg(image.float() / 255, 40))
    assert torch.equal(got, expected)
    assert not torch.equal(got, image)


def test_kornias_jpeg_is_close_to_pillows() -> None:
    # The codec for devices other than the CPU. Its error against Pillow's result, not against the picture.
    image = ramp_picture(64)[:, :56, :40]
    image[0, 10:30, 5:20] = 1.0
    for quality in (30, 40, 60, 90):
        real, smooth = steps.jpeg_pillow(image, quality), steps.jpeg_torch(image, quality)
        assert smooth.shape == image.shape
        assert psnr_db(smooth, real) > 33, f"quality {quality}"
        assert psnr_db(smooth, real) > psnr_db(real, image) + 6, f"quality {quality}: not much closer than JPEG's own error"


def test_resize_sizes_and_identity() -> None:
    image = ramp_picture(32)
    assert steps.resize(image, (32, 32), "bicubic") is image
    assert steps.resize(image, (5, 71), "area").shape == (3, 5, 71)
    assert_close(steps.resize(image, (16, 16), "area"), torch.nn.functional.avg_pool2d(image, 2), ONE_MODULE)


def test_a_picture_beyond_pillows_own_limit_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "PILLOWS_LIMIT_PX", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert steps.jpeg_pillow(ramp_picture(), 90).shape == (3, 64, 64)
