"""Sizes in px and in latent cells, and padding by repeated edges."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import (
    LATENT_CELL_PX,
    Box,
    Size,
    crop_to,
    latent_size,
    pad_to_latent_cells,
    padded_size_px,
)

# px -> cells, by hand
CELLS = {1: 1, 7: 1, 8: 1, 9: 2, 15: 2, 16: 2, 17: 3, 1023: 128, 1024: 128, 1025: 129}


def test_sizes_are_height_first_and_shown_width_first():
    assert Size(3, 5) == (3, 5) and str(Size(3, 5)) == "5x3"
    assert Box(top=1, left=2, height=3, width=4) == (1, 2, 3, 4)
    assert LATENT_CELL_PX == 8


@pytest.mark.parametrize("height", CELLS)
@pytest.mark.parametrize("width", CELLS)
def test_a_size_is_rounded_up_to_whole_cells(height, width):
    assert padded_size_px(Size(height, width)) == (8 * CELLS[height], 8 * CELLS[width])
    assert latent_size(Size(height, width)) == (CELLS[height], CELLS[width])


@pytest.mark.parametrize("size", [Size(1, 1), Size(9, 8), Size(8, 9), Size(15, 26)])
def test_the_last_row_and_column_are_repeated_and_cut_off_again(size):
    image = torch.arange(2 * 3 * size.height * size.width, dtype=torch.float32).reshape(2, 3, *size)
    padded = pad_to_latent_cells(image)
    assert padded.shape == (2, 3, *padded_size_px(size))
    for row in range(padded.shape[2]):
        for column in range(padded.shape[3]):
            expected = image[:, :, min(row, size.height - 1), min(column, size.width - 1)]
            assert torch.equal(padded[:, :, row, column], expected)
    assert torch.equal(crop_to(padded, size), image)


def test_an_image_of_whole_cells_is_not_copied():
    image = torch.zeros(1, 3, 16, 8)
    assert pad_to_latent_cells(image) is image
