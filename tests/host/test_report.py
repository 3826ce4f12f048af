"""FaithDiff Report in the host: its text, its map, batches, sizes, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_faithdiff.nodes.report import FaithDiffReport
from comfyui_faithdiff.nodes.reporting.maps import MAP_SCALES
from support import tiny
from support.compare import ONE_MODULE, assert_close
from support.executor import run_prompt


def report(image, reference, kind="consistency", tile_size=0, overlap=0.5, scale=0.0, **truth):
    result = FaithDiffReport.execute(image, reference, kind, tile_size, overlap, scale, **truth)
    assert result.ui.as_dict() == {"text": (result.args[0],)}
    return result.args


def degraded(image, factor=4):
    return torch.nn.functional.avg_pool2d(image[..., :3].movedim(-1, 1), factor).movedim(1, -1)


@pytest.fixture
def image():
    return tiny.image(256, 320, batch=4)


@pytest.mark.parametrize("kind", MAP_SCALES)
def test_an_image_by_itself_is_what_it_is_in_a_batch(image, kind):
    references = degraded(tiny.image(256, 320, batch=4, seed=1) * 0.1 + image * 0.9)
    text, maps = report(image, references, kind, tile_size=128)
    assert maps.shape == image.shape and maps.dtype == torch.float32 and 0 <= maps.min() <= maps.max() <= 1
    for i in range(4):
        alone, map_alone = report(image[i : i + 1], references[i : i + 1], kind, tile_size=128)
        assert torch.equal(maps[i : i + 1], map_alone)
        lines = alone.splitlines()
        assert f"image {i + 1}:\n" + "\n".join(lines[:-1]) in text and lines[-1].startswith("map: ")
    first, map_of_first = report(image[:2], references[:1], kind, tile_size=128)  # one reference for all
    assert torch.equal(map_of_first[:1], maps[:1]) and first.startswith("2 images: consistency ")


def test_words_for_good_and_bad(image):
    good, _ = report(image[:1], degraded(image[:1]), tile_size=128)
    assert "consistency: follows the input\n" in good and "at 80x64 px (1/4)" in good
    assert "colours: kept\n" in good and "seams: none seen\n" in good and "of 20 tiles" not in good and "of 12 tiles" in good
    bad, _ = report(image[1:2] * 0.8, degraded(image[:1]))
    assert "consistency: departs far from the input; raise strength" in bad
    assert "colours: drift; use FaithDiff Color Fix" in bad and "seams: none, one tile\n" in bad
    for overlap, border_px, advice in ((0.0, 128, "raise tile_overlap to 0.5"), (0.5, 64, "sample in larger tiles")):
        cell = torch.arange(256) // border_px
        stepped = 0.4 + 0.05 * ((cell + cell[:, None]) % 2).view(1, 256, 256, 1).expand(-1, -1, -1, 3)
        assert f"seams: seen; {advice}" in report(stepped, degraded(stepped), tile_size=128, overlap=overlap)[0]


def test_alpha_is_ignored(image):
    alpha = torch.cat([image, torch.rand(*image.shape[:3], 1)], dim=-1)
    assert_close(report(alpha, degraded(image))[1], report(image, degraded(image))[1], ONE_MODULE)  # they lie otherwise in memory
    assert report(alpha, alpha)[0] == report(image, image)[0]


@pytest.mark.parametrize(("height", "width"), [(251, 333), (16, 16), (1, 1), (9, 130)])
@pytest.mark.parametrize("kind", MAP_SCALES)
def test_any_size(height, width, kind):
    image = tiny.image(height, width)
    text, maps = report(image, image, kind, tile_size=64)
    assert maps.shape == image.shape and maps.isfinite().all()
    assert ("too small for SSIM" in text) == (min(height, width) < 42)  # 11 px at a quarter
    assert "consistency: too small to judge" in text or "consistency: follows the input" in text
    assert "without end (equal)" in text


def test_padding_of_the_decoder_is_cut(image):
    reference = image[:1, :251, :313]
    text, maps = report(image[:1], reference)
    assert maps.shape == reference.shape and (text, True) == (report(reference, reference)[0], True)


def test_truth(image):
    truth = (image + 0.1).clamp(0, 1)
    text, _ = report(image * 0.9, degraded(image), truth=image * 0.9 + 0.1)
    assert text.count("truth: PSNR 20.00 dB, SSIM 0.") == 4
    assert report(image, degraded(image), truth=image)[0].count("truth: PSNR without end (equal), SSIM 1.000") == 4
    with pytest.raises(ValueError, match="expected a truth of the image's 320x256 px, got 256x256"):
        report(image, degraded(image), truth=truth[:, :, :256])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_said(image, value):
    broken = image[:1].clone()
    broken[0, 10:12, 20, 1] = value
    text, maps = report(broken, degraded(image[:1]))
    assert text.startswith("warning: the image has 2 pixels that are no numbers") and maps.isfinite().all()
    assert "nan" not in text.replace("(NaN", "")
    assert "warning: the reference has 2 pixels" in report(image[:1], broken)[0]
    assert torch.equal(broken.isfinite().all(dim=-1).sum(), torch.tensor(256 * 320 - 2))  # what came in is not changed


def test_refusals(image):
    with pytest.raises(ValueError, match="expected a reference of the shape of the image, 320x256 px, got 64x64"):
        report(image, tiny.image(64, 64))
    with pytest.raises(ValueError, match="expected 1 reference or one for each of the 4 images, got 3"):
        report(image, image[:3])
    with pytest.raises(ValueError, match="expected 1 truth or one for each of the 4 images, got 2"):
        report(image, image, truth=image[:2])
    with pytest.raises(ValueError, match="tile_size 0 or a multiple of 8"):
        report(image, image, tile_size=100)
    with pytest.raises(ValueError, match="expected a map of consistency, color, seams, got 'x'"):
        report(image, image, "x")


def test_it_runs_as_an_output_without_a_truth(monkeypatch, image):
    """In the host's own executor, with what the schema gives by default, and nothing behind the text."""
    prompt = {
        "1": {"class_type": "GiveTestObject", "inputs": {"index": 0}},
        "2": {"class_type": "GiveTestObject", "inputs": {"index": 1}},
        "3": {
            "class_type": "FaithDiffReport",
            "inputs": {
                "image": ["1", 0], "reference": ["2", 0], "map": "color", "tile_size": 1024, "tile_overlap": 0.5, "scale": 0.0,
            },
        },
        "4": {"class_type": "Keep", "inputs": {"value": ["3", 0]}},
    }  # fmt: skip
    ((text,),) = run_prompt(monkeypatch, prompt, [FaithDiffReport], [image[:1], degraded(image[:1])])
    assert text.startswith("consistency: follows the input")
    del prompt["4"]
    assert run_prompt(monkeypatch, prompt, [FaithDiffReport], [image[:1], degraded(image[:1])]) == []
