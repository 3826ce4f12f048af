"""The tile grid and its weights: the release's own, restated here as plain loops (pipeline_FaithDiff_tlc.py:160-256)."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Box, Size
from comfyui_faithdiff.faithdiff_core.tiling import gaussian_weights, tile_boxes
from support.release_grid import official_starts

SIDES = [1, 7, 63, 64, 65, 96, 128, 129, 160, 191, 192, 193, 256, 300, 512]


@pytest.mark.parametrize("overlap_frac", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("tile", [8, 31, 64, 128])
def test_grid_is_the_releases(tile, overlap_frac):
    for height in (side for side in SIDES if side <= 24 * tile):  # small tiles of large sides are many and no other
        for width in (min(height, 200), 65):  # the two directions are alike, and boxes are many
            expected = [
                Box(top, left, min(tile, height), min(tile, width))
                for top in official_starts(height, tile, 1 - overlap_frac)
                for left in official_starts(width, tile, 1 - overlap_frac)
            ]
            assert tile_boxes(Size(height, width), tile, overlap_frac) == expected


@pytest.mark.parametrize("overlap_frac", [0.0, 0.3, 0.5, 0.95])
def test_tiles_cover_everything_and_stay_inside(overlap_frac):
    for size in (Size(5, 400), Size(130, 129), Size(64, 64)):
        seen = torch.zeros(size)
        for top, left, height, width in tile_boxes(size, 64, overlap_frac):
            assert 0 <= top <= size.height - height and 0 <= left <= size.width - width
            seen[top : top + height, left : left + width] += 1
        assert seen.min() >= 1


def test_overlap_is_the_true_one():
    """The release's own word counts the step instead: 0.1 there gives 31 places on 512 cells, 0.9 gives 5."""
    assert len(tile_boxes(Size(128, 512), 128, 0.9)) == 31
    assert len(tile_boxes(Size(128, 512), 128, 0.1)) == 5
    assert [b.left for b in tile_boxes(Size(128, 512), 128, 0.5)] == [0, 64, 128, 192, 256, 320, 384]


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 128), (7, 1)])
def test_weights_are_the_releases(height, width):
    """Up to a factor, which blending divides out. The middle is half a cell too low down, as in the release."""
    across = [math.exp(-(((x - (width - 1) / 2) / width) ** 2) / 0.02) for x in range(width)]
    down = [math.exp(-(((y - height / 2) / height) ** 2) / 0.02) for y in range(height)]
    expected = torch.outer(torch.tensor(down), torch.tensor(across))
    weights = gaussian_weights(height, width)
    assert weights.dtype == torch.float32 and weights.shape == (height, width)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0)


def test_weights_are_never_zero():
    for side in (1, 2, 64, 128, 2048):
        assert gaussian_weights(side, side).min() > 1e-12
