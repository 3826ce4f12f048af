"""A map of numbers over a picture, in colours whose lightness rises with the number."""

from __future__ import annotations

import torch

POINTS = ((0.06, 0.10, 0.31), (0.44, 0.20, 0.53), (0.84, 0.32, 0.39), (0.96, 0.60, 0.25), (0.96, 0.92, 0.40))
"""Control points in sRGB, at equal distances: dark blue, violet, red, orange, yellow. Lightness in CIE Lab rises by nearly equal
steps (12, 32, 51, 71, 91; a test), so that more looks like more, also in grey and to the colour-blind."""
COLORS = 256
COLOR_SHARE = 0.7
"""The rest is the picture in grey: enough to see where one is, too little to be taken for colour."""
LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""
STRIP_ROWS = 512


def colors() -> torch.Tensor:
    """The table of colours, fp32 (256, 3), sRGB in [0, 1]."""
    points = torch.tensor(POINTS)
    position = torch.linspace(0, len(POINTS) - 1, COLORS)
    first = position.floor().long().clamp(max=len(POINTS) - 2)
    return torch.lerp(points[first], points[first + 1], (position - first).unsqueeze(1))


def draw(map_HW: torch.Tensor, image_CHW: torch.Tensor, out_HWC: torch.Tensor) -> None:
    """Writes the map over the picture, in grey, into `out_HWC`.

    Args:
        map_HW: (H, W); 0 is the first colour, 1 and more the last one.
        image_CHW: (3, H, W), sRGB in [0, 1].
        out_HWC: fp32 (H, W, 3), overwritten with values in [0, 1].
    """
    table, luma = colors().to(out_HWC), image_CHW.new_tensor(LUMA)
    for top in range(0, map_HW.shape[0], STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        index_HW = (map_HW[rows].clamp(0, 1) * (COLORS - 1)).round_().to(torch.int32)
        grey_HW = torch.einsum("chw,c->hw", image_CHW[:, rows], luma)
        out_HWC[rows] = torch.lerp(grey_HW.unsqueeze(-1), table[index_HW.to(table.device)], COLOR_SHARE)
