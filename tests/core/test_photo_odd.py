"""Photos of rare kinds: as they look, or refused by name; never other pixels without a word."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from PIL._util import DeferredError
from support.icc import matrix_profile
from support.photos import all_cases, card, png_16

from faithdiff_core.photo.curves import read_profile
from faithdiff_core.photo.photo import PhotoSource, to_unit
from faithdiff_core.photo.read import read_photo
from faithdiff_core.photo.write import Output, encode_photo

DEEP = card().astype(np.uint16) * 257 + np.arange(96, dtype=np.uint16)[None, :, None]
"""All 16 bits are used."""


def tiff(pixels: np.ndarray, photometric: int, *, tile_px: int = 0, planar: bool = False, **tags: object) -> bytes:
    """uint16 (H, W, C), not compressed. `tags`: "t338" and so on."""
    height, width, channels = pixels.shape
    ifd = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    ifd[256], ifd[257], ifd[258], ifd[259], ifd[262], ifd[277] = width, height, (16,) * channels, 1, photometric, channels
    blocks = [pixels]
    if tile_px:
        rows, columns = -(-height // tile_px), -(-width // tile_px)
        padded = np.pad(pixels, ((0, rows * tile_px - height), (0, columns * tile_px - width), (0, 0)))
        blocks = [padded[y * tile_px :, x * tile_px :][:tile_px, :tile_px] for y in range(rows) for x in range(columns)]
        ifd[322] = ifd[323] = tile_px
    if planar:
        ifd[284], blocks = 2, [pixels[..., c] for c in range(channels)]
    for name, value in tags.items():
        ifd[int(name[1:])] = value
    data = [block.astype("<u2").tobytes() for block in blocks]
    starts = tuple(int(start) for start in np.cumsum([0, *(len(each) for each in data)])[:-1])
    sizes = tuple(len(each) for each in data)
    ifd[278] = height
    ifd[273], ifd[279] = (starts, sizes) if not tile_px else ((0,), (0,))
    if tile_px:  # Pillow's writer moves strips only, so their place is found in a first try
        del ifd[273], ifd[279], ifd[278]
        ifd[324], ifd[325] = starts, sizes
        first = io.BytesIO()
        end = ifd.save(first)
        ifd[324] = tuple(start + end for start in starts)
    file = io.BytesIO()
    ifd.save(file)
    return file.getvalue() + b"".join(data)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced(pixels: np.ndarray) -> bytes:
    """uint16 (H, W, 3) as PNG in Adam7 (PNG 8.2)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for top, left, down, right in passes
        for row in pixels[top::down, left::right]
        if row.size
    )
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 1)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["interlaced", "tiled", "tiled small"])
def test_what_ffmpeg_reads_wrongly_comes_from_pillow(kind: str) -> None:
    """At 8 bits, and that is said. FFmpeg can end the whole process on an interlaced PNG of 16 bits."""
    data = interlaced(DEEP) if kind == "interlaced" else tiff(DEEP, 2, tile_px=16 if kind == "tiled small" else 64)
    photo = read_photo(data, "x")
    assert np.abs(photo.color_HWC.astype(int) - DEEP).max() <= 257 and photo.source.depth_bits == 16
    assert [warning for warning in photo.warnings if "8 were taken" in warning]


def test_strips_keep_all_bits() -> None:
    photo = read_photo(tiff(DEEP, 2), "x")
    assert np.array_equal(photo.color_HWC, DEEP) and not photo.warnings


def test_channels_apart_are_refused_at_16_bits() -> None:
    with pytest.raises(ValueError, match="got them apart"):
        read_photo(tiff(DEEP, 2, planar=True), "x")


def test_cmyk_of_16_bits_is_cmyk() -> None:
    cyan = np.zeros((4, 5, 4), np.uint16)
    cyan[..., 0] = 65535
    photo = read_photo(tiff(cyan, 5), "x")
    red, green, blue = (photo.color_HWC[0, 0] / 65535).tolist()
    assert red < 0.1 and green > 0.5 and blue > 0.8 and photo.alpha_HW is None


def test_a_fourth_channel_that_is_no_alpha_is_none() -> None:
    four = np.dstack([DEEP, np.zeros(DEEP.shape[:2], np.uint16)])
    photo = read_photo(tiff(four, 2, t338=(0,)), "x")
    assert photo.alpha_HW is None and np.abs(photo.color_HWC.astype(int) - DEEP).max() <= 257


def test_a_negative_of_16_bits_is_turned_positive() -> None:
    photo = read_photo(tiff(np.zeros((4, 5, 1), np.uint16), 0), "x")
    assert (photo.color_HWC == 65535).all()


def test_signed_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="without a sign"):
        read_photo(tiff(np.zeros((4, 5, 1), np.uint16), 1, t339=(2,)), "x")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_key_of_few_bits_hides_its_grey(bits: int) -> None:
    """Eight pixels: the key's grey, then white."""
    per_byte, top = 8 // bits, 2**bits - 1
    values = [1 if top > 1 else 0] + [top] * 7
    packed = bytes(
        sum(value << (8 - bits * (i + 1)) for i, value in enumerate(values[at : at + per_byte])) for at in range(0, 8, per_byte)
    )
    head = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"tRNS", struct.pack(">H", values[0]))
    photo = read_photo(data + png_chunk(b"IDAT", zlib.compress(b"\0" + packed)) + png_chunk(b"IEND", b""), "x.png")
    assert photo.alpha_HW is not None and photo.alpha_HW[0].tolist() == [0] + [255] * 7


def png_of_card() -> bytes:
    file = io.BytesIO()
    Image.fromarray(card()).save(file, "PNG")
    return file.getvalue()


def test_a_damaged_or_endless_png_is_refused() -> None:
    whole = png_of_card()
    middle = whole.index(b"IDAT") + 60
    for broken in (whole[:middle] + bytes(4) + whole[middle + 4 :], whole[:-12], whole[:-3]):
        with pytest.raises(ValueError, match="expected a readable picture, got x.png"):
            read_photo(broken, "x.png")


@pytest.mark.parametrize(
    ("chunk", "told"), [((b"gAMA", struct.pack(">I", 100000)), "gamma"), ((b"cICP", bytes([12, 13, 0, 1])), "cICP 12")]
)
def test_colours_told_by_numbers_are_named(chunk: tuple[bytes, bytes], told: str) -> None:
    whole = png_of_card()
    photo = read_photo(whole[:33] + png_chunk(*chunk) + whole[33:], "x.png")
    assert [warning for warning in photo.warnings if told in warning] and np.array_equal(photo.color_HWC, card())


def test_curves_that_are_no_curves() -> None:
    """Black that is not 0 is littlecms' (black point compensation); a division by 0 is a damaged profile."""
    profile = matrix_profile("p3")
    at = profile.index(b"curv")
    raised = profile[: at + 12] + (4000).to_bytes(2, "big") + profile[at + 14 :]
    assert read_profile(profile) is not None and read_profile(raised) is None
    none = profile[:at] + b"para\0\0\0\0" + struct.pack(">HH3i", 1, 0, 65536, 0, 65536) + profile[at + 24 :]
    assert read_profile(none) is None


def made(source: PhotoSource, container: str = "PNG") -> tuple[bytes, tuple[str, ...]]:
    written = encode_photo(to_unit(card()), None, source, Output(container=container))
    return written.data, written.notes


def test_texts_of_exif_keep_their_letters() -> None:
    exif = Image.Exif()
    exif[0x8298] = "© Müller".encode()
    exif.get_ifd(0x8769)[0x9286] = "Größe".encode()
    file = io.BytesIO()
    Image.fromarray(card()).save(file, "JPEG", exif=exif.tobytes())
    source = read_photo(file.getvalue(), "x.jpg").source
    for container in ("PNG", "JPEG", "WEBP", "TIFF"):
        with Image.open(io.BytesIO(made(source, container)[0])) as image:
            assert image.getexif()[0x8298].encode("latin-1").decode() == "© Müller", container


def test_blocks_that_a_format_does_not_hold_are_told() -> None:
    large = PhotoSource(name="x", container="JPEG", depth_bits=8, xmp=b"<x>" + b"a" * 70_000 + b"</x>")
    data, notes = made(large, "JPEG")
    assert "XMP" in notes[0] and read_photo(data, "x.jpg").source.xmp is None
    for container in ("PNG", "TIFF", "WEBP"):
        data, notes = made(large, container)
        assert not notes and read_photo(data, "x").source.xmp == large.xmp
    profile = matrix_profile("p3")
    huge = PhotoSource(name="x", container="PNG", depth_bits=8, profile=profile + bytes(1_200_000))
    data, notes = made(huge)
    assert (
        "larger than readers of PNG take" in notes[0]
        and np.abs(read_photo(data, "x.png").color_HWC.astype(int) - card()).max() <= 1
    )


def test_without_littlecms_only_what_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {case.name: case for case in all_cases()}
    monkeypatch.setattr(ImageCms, "core", DeferredError(ImportError("no _imagingcms")))
    photo = read_photo(cases["p3-png"].data, "x.png")
    assert made(photo.source)[0]
    with pytest.raises(ValueError, match="expected littlecms in Pillow .* install the usual one"):
        read_photo(cases["lab-tiff"].data, "x.tif")


def test_nonsense_in_dots_per_inch_is_left_out() -> None:
    file = io.BytesIO()
    Image.fromarray(card()).save(file, "TIFF", dpi=(1e9, 1e9))
    photo = read_photo(file.getvalue(), "x.tif")
    assert photo.source.dpi is None and made(photo.source)[0]


def test_16_bits_with_an_odd_width_and_alpha() -> None:
    four = np.dstack([DEEP[:, :95], np.full((64, 95), 30000, np.uint16)])
    photo = read_photo(png_16(four, None), "x.png")
    assert np.array_equal(photo.color_HWC, four[..., :3]) and (photo.alpha_HW == 30000).all()
