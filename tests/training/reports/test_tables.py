"""What reports are laid out with."""

from __future__ import annotations

import pytest
import torch

from training.reports.sheets import sheet
from training.reports.tables import markdown_table


def test_the_last_letter_is_that_of_the_other_columns() -> None:
    table = markdown_table(["row", "a", "b"], [["x", "1", "2"], ["y", "", "3"]], align="lr")
    assert table == "| row | a | b |\n|---|--:|--:|\n| x | 1 | 2 |\n| y |  | 3 |"
    assert markdown_table(["a", "b"], [], align="lc") == "| a | b |\n|---|:-:|"


def test_a_sheet_keeps_every_pixel_with_white_between() -> None:
    a, b = (torch.full((3, 2, width), value, dtype=torch.uint8) for width, value in ((3, 1), (4, 2)))
    made = sheet([[a, b], [a, b]], gap_px=2)
    assert made.shape == (3, 4, 3 + 2 + 4) and made.dtype == torch.uint8
    assert torch.equal(made[:, 2:, :3], a) and torch.equal(made[:, :2, 5:], b) and (made[..., 3:5] == 255).all()
    with pytest.raises(RuntimeError):
        sheet([[a], [b]])
