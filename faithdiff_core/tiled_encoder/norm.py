"""Group norm of an image that is seen in parts: the statistics are those of the whole image.

Shapes: C channels, G groups, H and W positions of the part at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


class Moments:
    """Mean and sum of squared distances per group, gathered part by part.

    Each part is summed in fp32 around its own mean, so that half precision cannot overflow; parts are joined in fp64 on the CPU
    by the parallel formula (Chan, Golub and LeVeque 1979), so that the order and number of parts do not matter.
    """

    def __init__(self, groups: int):
        self.count = 0
        self.mean_G = torch.zeros(groups, dtype=torch.float64)
        self.squares_G = torch.zeros(groups, dtype=torch.float64)

    def add(self, part_1CHW: torch.Tensor) -> None:
        values_GN = part_1CHW.float().reshape(self.mean_G.shape[0], -1)
        count, mean_G1 = values_GN.shape[1], values_GN.mean(dim=1, keepdim=True)
        squares_G = (values_GN - mean_G1).square_().sum(dim=1).cpu().double()
        apart_G = mean_G1.squeeze(1).cpu().double() - self.mean_G
        total = self.count + count
        self.mean_G += apart_G * (count / total)
        self.squares_G += squares_G + apart_G.square() * (self.count * count / total)
        self.count = total

    def variance(self) -> torch.Tensor:
        """(G,), biased, as group norm takes it."""
        return self.squares_G / self.count


@dataclass(frozen=True)
class Coefficients:
    """A group norm with its statistics known: x * scale + shift, (1, C, 1, 1) each in fp32."""

    scale_1C11: torch.Tensor
    shift_1C11: torch.Tensor

    def normalise(self, x_1CHW: torch.Tensor) -> torch.Tensor:
        """In fp32 inside, as torch's group norm does; a new tensor of fp32, whatever came in."""
        return (x_1CHW * self.scale_1C11).add_(self.shift_1C11)


def coefficients(norm: nn.GroupNorm, moments: Moments, device: torch.device) -> Coefficients:
    """A group norm with these statistics, on a device.

    Raises:
        FloatingPointError: statistics that are not finite, which nothing after them can mend.
    """
    variance_G = moments.variance()
    if not (torch.isfinite(variance_G).all() and torch.isfinite(moments.mean_G).all()):
        raise FloatingPointError("statistics of a group norm that are not finite")
    weight_C, bias_C = _affine(norm, device)
    width = norm.num_channels // norm.num_groups
    scale_C = (variance_G + norm.eps).rsqrt().repeat_interleave(width) * weight_C
    shift_C = bias_C - moments.mean_G.repeat_interleave(width) * scale_C
    return Coefficients(*(t.float().to(device)[None, :, None, None] for t in (scale_C, shift_C)))


def _affine(norm: nn.GroupNorm, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm's weight and bias, (C,) in fp64 on the CPU, told by the layer itself.

    The host may hold a layer's weights elsewhere, in another type, patched or not at all until it is called; so it is called,
    with values of mean 0 and variance 1.
    """
    probe_1C12 = torch.tensor([1.0, -1.0], device=device).expand(1, norm.num_channels, 1, 2).contiguous()
    plus_C, minus_C = norm(probe_1C12)[0, :, 0].cpu().double().unbind(-1)
    return (plus_C - minus_C) / 2 * (1.0 + norm.eps) ** 0.5, (plus_C + minus_C) / 2
