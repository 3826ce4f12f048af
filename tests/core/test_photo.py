"""Photos in and out: every mode, depth, profile, orientation and container of the table, damaged files, hidden pixels."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.icc import matrix_profile
from support.photos import CAMERA, DPI, PhotoCase, all_cases, alpha, card, differences, levels, png_16, worst_level

from faithdiff_core.photo import photo as pixels_of
from faithdiff_core.photo.alpha import fill_hidden
from faithdiff_core.photo.curves import read_profile
from faithdiff_core.photo.read import read_photo
from faithdiff_core.photo.write import SUFFIXES, Output, encode_photo

CASES = {case.name: case for case in all_cases()}


def assert_looks_like(color_HWC: np.ndarray, case: PhotoCase, *, tolerance: float | None = None) -> None:
    """Where it can be seen, within 1 of 255 (or what the case allows)."""
    worst = worst_level(color_HWC, case)
    assert worst <= (tolerance or case.tolerance), f"{case.name}: {worst:.2f}"


def test_the_table_has_its_size() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_read_as_it_looks(name: str) -> None:
    case = CASES[name]
    photo = read_photo(case.data, case.file_name)
    assert photo.color_HWC.shape == case.sRGB_HWC.shape
    assert_looks_like(photo.color_HWC, case)
    source = photo.source
    assert (source.depth_bits, source.profile, source.container) == (case.depth_bits, case.profile, case.container)
    assert source.has_alpha == (case.alpha_HW is not None) and source.name == case.name
    if case.alpha_HW is not None:
        assert photo.alpha_HW is not None and np.array_equal(levels(photo.alpha_HW), case.alpha_HW)
    else:
        assert photo.alpha_HW is None
    assert (source.xmp is not None) == (source.exif is not None) == case.has_metadata


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("container", SUFFIXES)
def test_a_picture_goes_out_as_it_came(name: str, container: str) -> None:
    case = CASES[name]
    photo = read_photo(case.data, case.file_name)
    alpha_HW = None if photo.alpha_HW is None else pixels_of.to_unit(photo.alpha_HW)
    written = encode_photo(pixels_of.to_unit(photo.color_HWC), alpha_HW, photo.source, Output(container=container, quality=100))
    back = read_photo(written.data, "x" + written.suffix)
    wide = 6.0 if case.profile and container == "WEBP" else 0.0  # 8 bits of a wide space are coarse where it is dark
    if container == "JPEG" and case.alpha_HW is not None:
        assert any("alpha" in note for note in written.notes) and back.alpha_HW is None
    else:
        if container == "JPEG":  # whose own noise is some levels of a wide space
            assert differences(back.color_HWC, case).mean() < 4.0
        else:
            assert_looks_like(back.color_HWC, case, tolerance=case.tolerance + 1.0 + wide)
        assert back.source.has_alpha == (case.alpha_HW is not None)
        assert case.alpha_HW is None or np.array_equal(levels(back.alpha_HW), case.alpha_HW)
    deep = case.depth_bits == 16 and container in ("PNG", "TIFF")
    assert back.source.depth_bits == (16 if deep else 8)
    assert back.source.profile == case.profile
    assert (case.depth_bits == 16 and not deep) == any("8 bits" in note for note in written.notes)
    with Image.open(io.BytesIO(written.data)) as image:
        exif = image.getexif()
        assert exif.get(0x0112, 1) == 1
        if case.has_metadata:
            assert exif[0x0110] == CAMERA
            width_px = exif.get_ifd(0x8769).get(0xA002, image.width)
            assert width_px == image.width
            xmp = back.source.xmp or b""
            assert b"card" in xmp and (case.orientation == 1 or b'Orientation="%d"' % case.orientation not in xmp)
            if container != "WEBP" and case.container != "WEBP":
                assert back.source.dpi == pytest.approx((DPI, DPI), abs=0.01)


def test_a_file_of_its_own_kind_has_the_same_numbers() -> None:
    """Nothing changed, nothing lost: the file's own values, in its own profile, to the bit."""
    for space in ("p3", "adobe", "prophoto"):
        for case in (CASES[f"{space}-png"], CASES[f"deep-{space}-png"], CASES[f"deep-{space}-tiff"]):
            photo = read_photo(case.data, case.file_name)
            written = encode_photo(pixels_of.to_unit(photo.color_HWC), None, photo.source, Output())
            if case.depth_bits == 8:
                with Image.open(io.BytesIO(case.data)) as before, Image.open(io.BytesIO(written.data)) as after:
                    assert np.array_equal(np.asarray(before), np.asarray(after)), case.name
            else:
                again = read_photo(written.data, "x.png")
                assert np.abs(again.color_HWC.astype(int) - photo.color_HWC).max() <= 8, case.name  # of 65535


def test_in_srgb_as_asked() -> None:
    case = CASES["deep-p3-tiff"]
    photo = read_photo(case.data, case.file_name)
    written = encode_photo(pixels_of.to_unit(photo.color_HWC), None, photo.source, Output(in_srgb=True))
    with Image.open(io.BytesIO(written.data)) as image:
        profile = image.info["icc_profile"]
    assert read_profile(profile).is_srgb
    assert_looks_like(read_photo(written.data, "x.tif").color_HWC, case)


def test_adobe_rgb_by_exif_alone() -> None:
    """Cameras set to Adobe RGB write no profile."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    file = io.BytesIO()
    with Image.open(io.BytesIO(CASES["adobe-png"].data)) as image:
        Image.fromarray(np.asarray(image)).save(file, "PNG", exif=exif.tobytes())
    photo = read_photo(file.getvalue(), "x.png")
    assert_looks_like(photo.color_HWC, CASES["adobe-png"])
    assert any("Adobe RGB" in warning for warning in photo.warnings)


@pytest.mark.parametrize("damage", ["short", "not a profile", "of CMYK"])
def test_a_profile_that_is_none_is_told_and_left_out(damage: str) -> None:
    profile = matrix_profile("p3")
    profile = {"short": profile[:300], "not a profile": b"x" * 400, "of CMYK": profile[:16] + b"CMYK" + profile[20:]}[damage]
    file = io.BytesIO()
    Image.fromarray(card()).save(file, "PNG", icc_profile=profile)
    photo = read_photo(file.getvalue(), "x.png")
    assert np.array_equal(photo.color_HWC, card()) and len(photo.warnings) == 1 and photo.source.profile is None


@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("part", [2 / 3, 0.95])
def test_a_cut_file_is_refused_by_name(container: str, part: float) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, container)
    data = file.getvalue()
    with pytest.raises(ValueError, match=r"^expected a readable picture, got cut\.x \(.*\); remove or replace it$") as caught:
        read_photo(data[: int(len(data) * part)], "cut.x")
    assert "0x" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_deep_file_that_is_cut_is_refused() -> None:
    """FFmpeg alone would show its upper part."""
    data = png_16(np.random.default_rng(0).integers(0, 65536, (64, 96, 3), dtype=np.uint16), None)
    with pytest.raises(ValueError, match="expected a readable picture"):
        read_photo(data[: len(data) * 2 // 3], "x.png")


@pytest.mark.parametrize(
    ("mode", "values", "told"),
    [("F", (0.0, 812.0), "floats from 0 .* to 1"), ("F", (-0.5, 1.0), "floats"), ("F", (0.0, np.nan), "floats"),
     ("I", (0, 70000), "without a sign")],
)  # fmt: skip
def test_numbers_without_a_known_range_are_refused(mode: str, values: tuple, told: str) -> None:
    file = io.BytesIO()
    array = np.array([values] * 4, np.float32 if mode == "F" else np.int32)
    Image.fromarray(array).save(file, "TIFF")
    with pytest.raises(ValueError, match=told):
        read_photo(file.getvalue(), "x.tif")


def test_further_frames_are_told() -> None:
    frames = [Image.fromarray(np.roll(card(), index, 1)) for index in range(3)]
    for container in ("WEBP", "GIF", "TIFF", "PNG"):
        file = io.BytesIO()
        frames[0].save(file, container, save_all=True, append_images=frames[1:], lossless=True)
        photo = read_photo(file.getvalue(), "x")
        assert any("3 frames" in warning for warning in photo.warnings), container


def test_sizes_up_to_the_largest_that_is_made() -> None:
    """By a file's head alone: 16384 x 16384 is none too many, a row more is."""
    for height, told in ((16384, "readable picture"), (16385, "at most 268435456 px")):
        data = bytearray(png_16(np.zeros((1, 1, 3), np.uint16), None))
        data[16:24] = np.array([16384, height], ">u4").tobytes()
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
        with pytest.raises(ValueError, match=told):
            read_photo(bytes(data), "x.png")


def test_hidden_pixels_take_the_colours_around() -> None:
    color_HWC = torch.from_numpy(card()).float() / 255
    shown_HW = torch.from_numpy(alpha()) > 0
    with_magenta = torch.where(shown_HW[..., None], color_HWC, torch.tensor([1.0, 0.0, 1.0]))
    with_green = torch.where(shown_HW[..., None], color_HWC, torch.tensor([0.0, 1.0, 0.0]))
    filled = fill_hidden(with_magenta, shown_HW.float())
    assert torch.equal(filled[shown_HW], color_HWC[shown_HW])
    assert torch.equal(filled, fill_hidden(with_green, shown_HW.float())), "what was hidden must not matter"
    assert torch.equal(filled, fill_hidden(filled, shown_HW.float()))
    red = torch.tensor([230.0, 30.0, 30.0]) / 255
    assert (filled[20, :12] - red).abs().max() < 0.02  # beside the red bar


def test_all_or_nothing_hidden_is_left_alone() -> None:
    color_HWC = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0))
    assert fill_hidden(color_HWC, torch.ones(5, 7)) is color_HWC
    assert fill_hidden(color_HWC, torch.zeros(5, 7)) is color_HWC
