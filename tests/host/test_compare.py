"""FaithDiff Before / After: what it gives out and what it leaves for the page, at any sizes, batches and alpha."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.nodes.compare import FaithDiffCompare
from comfyui_faithdiff.nodes.seam.lanczos import lanczos
from PIL import Image
from support import tiny
from support.executor import run_prompt

pytestmark = pytest.mark.host
GAP_PX = 2  # of pictures this small


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    return tmp_path


def compare(before, after, **options):
    """The picture of both, and the saved previews: name to 8-bit arrays."""
    given = FaithDiffCompare.execute(before, after, **options)
    assert set(given.ui) == {"before", "after"}
    saved = {name: [_read(picture) for picture in pictures] for name, pictures in given.ui.items()}
    return given.args[0], saved


def _read(picture):
    assert picture["type"] == "temp"
    with Image.open(Path(folder_paths.get_temp_directory()) / picture["subfolder"] / picture["filename"]) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def _in_8_bits(image_HWC):
    return (255 * image_HWC.numpy()).clip(0, 255).astype(np.uint8)


def test_pictures_of_one_size_are_not_touched():
    before, after = tiny.image(40, 24, seed=1), tiny.image(40, 24, seed=2)
    both, saved = compare(before, after)
    assert both.shape == (1, 40, 2 * 24 + GAP_PX, 3)
    assert torch.equal(both[:, :, :24], before) and torch.equal(both[:, :, -24:], after)
    assert (both[:, :, 24:-24] == 1).all()
    for name, image in (("before", before), ("after", after)):
        assert np.array_equal(saved[name], [_in_8_bits(image[0])])


@pytest.mark.parametrize("size", [(13, 10), (80, 96), (1, 1)])
def test_the_before_is_brought_to_the_size_of_the_after(size):
    before, after = tiny.image(*size, seed=1), tiny.image(40, 24, seed=2)
    both, saved = compare(before, after, direction="down")
    wanted = lanczos(before[0], Size(40, 24)).clamp(0, 1)
    assert both.shape == (1, 2 * 40 + GAP_PX, 24, 3)
    assert torch.equal(both[0, :40], wanted) and torch.equal(both[:, -40:], after)
    assert np.array_equal(saved["before"], [_in_8_bits(wanted)])


@pytest.mark.parametrize(("first", "second"), [(1, 3), (3, 1), (2, 2)])
def test_batches(first, second):
    before, after = tiny.image(20, 12, batch=first, seed=1), tiny.image(40, 24, batch=second, seed=2)
    both, saved = compare(before, after)
    assert len(both) == max(first, second)
    assert (len(saved["before"]), len(saved["after"])) == (first, second)  # one picture is saved once
    for i, pair in enumerate(both):
        assert torch.equal(pair[:, :24], lanczos(before[min(i, first - 1)], Size(40, 24)).clamp(0, 1))
        assert torch.equal(pair[:, -24:], after[min(i, second - 1)])


def test_batches_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"expected as many pictures in before as in after, .*, got 2 and 3; connect"):
        compare(tiny.image(8, 8, batch=2), tiny.image(8, 8, batch=3))


@pytest.mark.parametrize(("before_channels", "after_channels"), [(3, 4), (4, 3), (4, 4), (5, 3)])
def test_alpha_is_kept_and_what_has_none_is_opaque(before_channels, after_channels):
    before, after = (
        torch.cat((tiny.image(size, size, seed=3), torch.full((1, size, size, channels - 3), 0.5)), dim=-1)
        for size, channels in ((16, before_channels), (32, after_channels))
    )
    both, saved = compare(before, after)
    assert both.shape == (1, 32, 2 * 32 + GAP_PX, 4)
    for side, name, channels in ((both[:, :, :32], "before", before_channels), (both[:, :, -32:], "after", after_channels)):
        alpha = 0.5 if channels > 3 else 1.0
        assert torch.allclose(side[..., 3], torch.full((1, 32, 32), alpha), atol=1e-6)
        assert saved[name][0].shape == (32, 32, min(channels, 4))
    assert torch.equal(both[:, :, -32:, :3], after[..., :3])


def test_what_lies_under_alpha_does_not_come_into_the_visible_part():
    before = torch.ones(1, 16, 16, 4)
    before[:, :, 8:] = torch.tensor([0.0, 0.0, 0.0, 0.0])
    both, _ = compare(before, torch.ones(1, 64, 64, 3))
    assert both[0, :, :64, :3].min() > 0.99


def test_pictures_that_are_none():
    bad = tiny.image(8, 8)
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="got NaN or infinity in before 1; if it comes from a VAE"):
        compare(bad, tiny.image(8, 8))


def test_in_a_prompt_without_the_optional_input(monkeypatch):
    """As an older workflow has it, and without anybody who listens for pictures."""
    prompt = {
        "1": {"class_type": "GiveTestObject", "inputs": {"index": 0}},
        "2": {"class_type": "GiveTestObject", "inputs": {"index": 1}},
        "3": {"class_type": "FaithDiffCompare", "inputs": {"before": ["1", 0], "after": ["2", 0]}},
        "4": {"class_type": "Keep", "inputs": {"value": ["3", 0]}},
    }
    (kept,) = run_prompt(monkeypatch, prompt, [FaithDiffCompare], [tiny.image(8, 6), tiny.image(16, 12)])
    assert kept[0].shape == (1, 16, 2 * 12 + GAP_PX, 3)
