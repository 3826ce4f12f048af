"""CIEDE2000, the difference of two colours as the eye sees it: about 1 is just seen.

Formulas: CIE 142-2001, in the words of Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula".
"""

from __future__ import annotations

import math

import torch

CHROMA_SCALE = 25.0**7
"""Of the two terms that say how far a colour is from grey."""


def ciede2000(lab_CN: torch.Tensor, other_CN: torch.Tensor) -> torch.Tensor:
    """Differences (N,) of colours in CIE Lab, both float64 (3, N), with all weights 1."""
    (l1, a1, b1), (l2, a2, b2) = lab_CN, other_CN
    stretch = 1 + 0.5 * (1 - _chroma_share((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2))
    c1, c2 = torch.hypot(stretch * a1, b1), torch.hypot(stretch * a2, b2)
    h1, h2 = (torch.atan2(b, stretch * a) % (2 * math.pi) for a, b in ((a1, b1), (a2, b2)))
    is_grey = c1 * c2 == 0  # one of the two has no hue
    turn = torch.where(is_grey, torch.zeros_like(h1), _within_half_turn(h2 - h1))
    hue = torch.where(is_grey, h1 + h2, h1 + _within_half_turn(h2 - h1) / 2)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    d_l, d_c, d_h = l2 - l1, c2 - c1, 2 * (c1 * c2).sqrt() * torch.sin(turn / 2)
    t = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / (20 + (lightness - 50) ** 2).sqrt()
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    blue = math.radians(30) * torch.exp(-(((torch.rad2deg(hue) % 360 - 275) / 25) ** 2))
    rotation = -torch.sin(2 * blue) * 2 * _chroma_share(chroma)
    d_l, d_c, d_h = d_l / s_l, d_c / s_c, d_h / s_h
    return (d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h).clamp(min=0).sqrt()


def _chroma_share(chroma_N: torch.Tensor) -> torch.Tensor:
    """0 for grey, near 1 for vivid colours."""
    return (chroma_N**7 / (chroma_N**7 + CHROMA_SCALE)).sqrt()


def _within_half_turn(angle_N: torch.Tensor) -> torch.Tensor:
    """The same direction, in [-pi, pi]."""
    return torch.where(angle_N.abs() > math.pi, angle_N - 2 * math.pi * angle_N.sign(), angle_N)
