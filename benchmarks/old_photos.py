"""Photos made old by rule: faded, stained, grained, each layer known, so that what comes back of it can be measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from PIL import Image

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""scikit-image's samples in colour that no training saw."""
SIDE_PX = 384
"""Of the middle square, whatever the photo's size was."""
BLACK, WHITE = (0.28, 0.19, 0.10), (0.96, 0.86, 0.64)
"""What black and white have become on faded prints (sRGB): dyes fade, cyan first, and the paper yellows."""
GRAIN_STD = 0.05
"""13 levels of 255, about that of a fast film enlarged."""
COLOUR_GRAIN_STD = 0.02
BLUR_STD_PX = 1.0
"""Of an old lens and a scan."""
SEED = 7


@dataclass(frozen=True, kw_only=True)
class OldPhoto:
    """A photo and what it became, all (3, H, W) in [0, 1]: soft and tinted; the same grained; stained, too; both grained."""

    truth_CHW: torch.Tensor
    tinted_CHW: torch.Tensor
    grained_CHW: torch.Tensor
    stained_CHW: torch.Tensor
    stained_grained_CHW: torch.Tensor


def photos() -> Iterator[tuple[str, torch.Tensor]]:
    for name in PHOTOS:
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
        yield name.split(".")[0], torch.from_numpy(np.asarray(square, np.float32) / 255).movedim(-1, 0).contiguous()


def age(truth_CHW: torch.Tensor, *, is_faded: bool) -> OldPhoto:
    tinted = _soft(_fade(truth_CHW) if is_faded else truth_CHW)
    stained = tinted * _stains(truth_CHW.shape[1])
    grain = _grain(truth_CHW.shape[1])
    return OldPhoto(
        truth_CHW=truth_CHW,
        tinted_CHW=tinted,
        grained_CHW=(tinted + grain).clamp(0, 1),
        stained_CHW=stained,
        stained_grained_CHW=(stained + grain).clamp(0, 1),
    )


def _fade(image_CHW: torch.Tensor) -> torch.Tensor:
    black, white = (torch.tensor(ends).reshape(3, 1, 1) for ends in (BLACK, WHITE))
    return black + (white - black) * image_CHW


def _stains(side_px: int) -> torch.Tensor:
    """What is left of the light, (3, side, side): two coffee rings and soft blotches, brown, at most a third darker."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side_px), torch.linspace(0, 1, side_px), indexing="ij")
    depth = torch.zeros_like(x)
    for center_x, center_y, radius in ((0.28, 0.34, 0.17), (0.70, 0.72, 0.21)):
        distance = torch.hypot(x - center_x, y - center_y)
        depth += 0.6 * torch.exp(-(((distance - radius) / 0.018) ** 2)) + 0.25 * torch.sigmoid((radius - distance) / 0.01)
    cells = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(SEED))
    blotches = F.interpolate(cells, (side_px, side_px), mode="bicubic", align_corners=True)[0, 0]
    depth = (depth + 0.7 * (blotches - 0.55).clamp(min=0)).clamp(max=1)
    return 1 - depth * torch.tensor((0.25, 0.4, 0.6)).reshape(3, 1, 1)


def _soft(image_CHW: torch.Tensor) -> torch.Tensor:
    reach = torch.arange(-3, 4, dtype=torch.float32)
    taps = torch.exp(-0.5 * (reach / BLUR_STD_PX) ** 2)
    taps = (taps / taps.sum()).reshape(1, 1, 1, 7).expand(3, 1, 1, 7)
    padded = F.pad(image_CHW[None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)[0]


def _grain(side_px: int) -> torch.Tensor:
    """(3, side, side), in lightness mostly."""
    generator = torch.Generator().manual_seed(SEED)
    shared = GRAIN_STD * torch.randn(1, side_px, side_px, generator=generator)
    return shared + COLOUR_GRAIN_STD * torch.randn(3, side_px, side_px, generator=generator)
