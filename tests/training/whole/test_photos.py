"""The table of photos through the trainer's commands: `reconstruct` and `restore --model` write it whole, `prepare` reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.photos import PhotoCase, all_cases, card, worst_level

from faithdiff_core.photo.photo import at_depth
from faithdiff_core.photo.read import read_photo
from training.cli import main
from training.common.images import Picture, png_bytes, read_image, read_picture
from training.data import manifest
from training.folder.prompt import make_form
from training.folder.result import for_upload, read_result, with_beside

CASES = all_cases()
LOAD_IMAGE = make_form(
    {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for case in CASES:
        (made / case.file_name).write_bytes(case.data)
    return made


def assert_whole(data: bytes, case: PhotoCase, *, tolerance: float) -> None:
    """Size, colours, alpha, depth, profile, orientation and metadata are the source's."""
    photo = read_photo(data, f"{case.name}.png")
    assert photo.color_HWC.shape == case.sRGB_HWC.shape
    worst = worst_level(photo.color_HWC, case)
    assert worst <= case.tolerance + tolerance, f"{case.name}: {worst:.2f}"
    if case.alpha_HW is not None:
        assert photo.alpha_HW is not None and np.array_equal(at_depth(photo.alpha_HW, 8), case.alpha_HW), case.name
    source = photo.source
    assert (source.has_alpha, source.profile) == (case.alpha_HW is not None, case.profile), case.name
    assert (source.exif is not None, source.xmp is not None) == (case.has_metadata, case.has_metadata), case.name


def test_a_result_has_all_that_its_source_had(folder: Path) -> None:
    """What both local commands do with each picture, by a network that changes nothing."""
    for case in CASES:
        picture = read_picture(folder / case.file_name)
        data, notes = picture.restored_png(picture.image)
        assert_whole(data, case, tolerance=1.0)
        assert read_photo(data, "x.png").source.depth_bits == case.depth_bits and not notes


def test_a_result_is_in_srgb_where_that_is_asked(folder: Path) -> None:
    picture = read_picture(folder / "deep-p3-tiff.tif")
    photo = read_photo(picture.restored_png(picture.image, in_srgb=True)[0], "x.png")
    assert np.abs(photo.color_HWC / 257 - card()).max() < 1.0 and photo.source.profile != picture.photo.source.profile


def test_alpha_is_enlarged_and_another_shape_has_none(folder: Path) -> None:
    picture = read_picture(folder / "rgba-png.png")
    twice = torch.nn.functional.interpolate(picture.image[None], scale_factor=2.0)[0]
    enlarged = read_photo(picture.restored_png(twice)[0], "x.png")
    assert enlarged.alpha_HW is not None and enlarged.alpha_HW.shape == (128, 192)
    assert (enlarged.alpha_HW[:4] == 0).all() and (enlarged.alpha_HW[40:, 60:] == 255).all()
    data, notes = picture.restored_png(twice[:, :100])
    assert read_photo(data, "x.png").alpha_HW is None and "shape is another" in notes[0]


def test_what_comes_back_from_load_image_and_save_image_is_whole(folder: Path) -> None:
    """The queue's way, by a server that changes nothing: an 8-bit RGB PNG of what it was sent."""
    for case in CASES:
        upload = for_upload(case.data, case.file_name, LOAD_IMAGE)
        sent = read_photo(upload.data, "sent" + upload.suffix)
        assert sent.is_plain or upload.suffix == ".png", "what a node that knows nothing of profiles would read as it is"
        assert sent.source.profile is None or sent.is_plain
        back = Picture(read_photo(upload.data, "x")).image_u8
        result = read_result(png_bytes(back), "x.png")
        result, notes = with_beside(result, upload.beside, in_srgb=False)
        wide = 6.0 if case.profile is not None else 0.0  # 8 bits of a wide space are coarse where it is dark
        assert_whole(result.data, case, tolerance=1.0 + wide)
        assert not notes


def test_prepare_takes_every_picture_in_its_true_colours(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "manifest.jsonl"
    assert main(["prepare", str(folder), "--out", str(made), "--min-side", "32"]) == 0
    assert "cmyk-jpeg.jpg is CMYK without a profile, so its colours are a guess" in capsys.readouterr().err
    records = {Path(record.path).name: record for record in manifest.read(made)}
    assert set(records) == {case.file_name for case in CASES}
    for case in CASES:
        image = read_image(records[case.file_name]).permute(1, 2, 0).numpy()
        assert worst_level(image, case) <= case.tolerance + 0.5, case.name  # half a level to round 16 bits to 8
