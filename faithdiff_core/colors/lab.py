"""sRGB to CIE Lab and back: colours on a scale where equal steps look about equal, lightness apart from tint."""

from __future__ import annotations

import torch

LINEAR_BELOW, LINEAR_SLOPE, OFFSET, GAMMA = 0.04045, 12.92, 0.055, 2.4
"""IEC 61966-2-1 (sRGB): from stored values to linear light."""
XYZ_OF_RGB = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""IEC 61966-2-1: the matrix from linear light to CIE XYZ for D65."""
D65_XYZ = (0.95047, 1.0, 1.08883)
"""The white point of D65, on which Lab stands."""
LAB_EDGE = 6 / 29
"""CIE 15: below its cube the cube root goes on as a straight line."""


def lab_of_srgb(rgb_CN: torch.Tensor) -> torch.Tensor:
    """CIE Lab (3, N) of sRGB colours (3, N) in [0, 1], of the same float type."""
    curved = ((rgb_CN + OFFSET) / (1 + OFFSET)) ** GAMMA
    linear = torch.where(rgb_CN <= LINEAR_BELOW, rgb_CN / LINEAR_SLOPE, curved)
    xyz = rgb_CN.new_tensor(XYZ_OF_RGB) @ linear / rgb_CN.new_tensor(D65_XYZ).unsqueeze(1)
    straight = xyz / (3 * LAB_EDGE**2) + 4 / 29
    x, y, z = torch.where(xyz > LAB_EDGE**3, xyz.clamp(min=0) ** (1 / 3), straight)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def srgb_of_lab(lab_CN: torch.Tensor) -> torch.Tensor:
    """The sRGB (3, N) of CIE Lab colours (3, N); outside of [0, 1] where sRGB has no such colour."""
    lightness, a, b = lab_CN
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200])
    xyz = torch.where(roots > LAB_EDGE, roots**3, (roots - 4 / 29) * 3 * LAB_EDGE**2)
    to_rgb = torch.linalg.inv(torch.tensor(XYZ_OF_RGB, dtype=torch.float64)).to(lab_CN)
    linear = to_rgb @ (xyz * lab_CN.new_tensor(D65_XYZ).unsqueeze(1))
    curved = (1 + OFFSET) * linear.clamp(min=0) ** (1 / GAMMA) - OFFSET
    return torch.where(linear <= LINEAR_BELOW / LINEAR_SLOPE, linear * LINEAR_SLOPE, curved)
