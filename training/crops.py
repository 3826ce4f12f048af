"""Training crops and SDXL's size conditioning, in one place.

A crop is taken from the source picture scaled down by a factor drawn per sample; "original size" is the scaled picture's, "crop"
the crop's origin in it, both in px, as SDXL means them."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from training.images import read_image, to_signed
from training.manifest import Record
from training.seeds import integer, uniform


@dataclass(frozen=True)
class Crop:
    """image_CHW float32 in [-1, 1]; (height, width) of the scaled source and (top, left) of the crop in it, px."""

    image_CHW: torch.Tensor
    original_HW_px: tuple[int, int]
    origin_YX_px: tuple[int, int]


def time_ids(original_HW_px: tuple[int, int], origin_YX_px: tuple[int, int], target_px: int) -> torch.Tensor:
    """SDXL's six numbers, float32 (6,): original H, W, crop top, left, target H, W.

    fp32 on purpose: fp16 rounds sizes above 2048 px (the official trainer does)."""
    return torch.tensor([*original_HW_px, *origin_YX_px, target_px, target_px], dtype=torch.float32)


class ImageStore:
    """Source pictures, read when first asked for, scaled down to a shorter side, the latest kept up to `cache_bytes`."""

    def __init__(self, records: list[Record], *, short_side_px: int, cache_bytes: int) -> None:
        self.records = records
        self._short_side_px = short_side_px
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._held: OrderedDict[int, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self.records)

    def get(self, index: int) -> torch.Tensor:
        """Picture `index` as uint8 (3, H, W)."""
        if index in self._held:
            self._held.move_to_end(index)
            return self._held[index]
        image = scale_short_side(read_image(Path(self.records[index].path)), self._short_side_px)
        self._held[index] = image
        self._held_bytes += image.numel()
        while self._held_bytes > self._cache_bytes and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= dropped.numel()
        return image


def scale_short_side(image_u8: torch.Tensor, short_side_px: int) -> torch.Tensor:
    """Scale uint8 (3, H, W) down to the shorter side given; smaller pictures are returned as they are."""
    height_px, width_px = image_u8.shape[1:]
    factor = short_side_px / min(height_px, width_px)
    if factor >= 1:
        return image_u8
    size = (max(round(height_px * factor), short_side_px), max(round(width_px * factor), short_side_px))
    return F.interpolate(image_u8[None], size=size, mode="bilinear", antialias=True)[0]


def draw_crop(image_u8: torch.Tensor, crop_px: int, max_zoom_out: float, generator: torch.Generator) -> Crop:
    """One crop of `crop_px` by `crop_px` px, mirrored half of the time.

    Pictures with a side below crop_px are padded by reflection (official dataloader: BORDER_REFLECT_101)."""
    height_px, width_px = image_u8.shape[1:]
    if min(height_px, width_px) < crop_px:
        image_u8 = _reflect_to(image_u8, crop_px)
        height_px, width_px = image_u8.shape[1:]
    largest = min(max_zoom_out, min(height_px, width_px) / crop_px)
    # Log-uniform: halving and doubling the size are equally likely.
    zoom = math.exp(uniform(generator, 0.0, math.log(largest))) if largest > 1 else 1.0
    window_px = min(round(crop_px * zoom), height_px, width_px)
    top = integer(generator, 0, height_px - window_px)
    left = integer(generator, 0, width_px - window_px)
    window = to_signed(image_u8[:, top : top + window_px, left : left + window_px])
    if window_px != crop_px:
        window = F.interpolate(window[None], size=(crop_px, crop_px), mode="bilinear", antialias=True)[0].clamp(-1, 1)
    ratio = crop_px / window_px
    original = (round(height_px * ratio), round(width_px * ratio))
    origin = (round(top * ratio), round(left * ratio))
    if integer(generator, 0, 1):
        window = window.flip(2)
        origin = (origin[0], max(original[1] - crop_px - origin[1], 0))
    return Crop(window.contiguous(), original, origin)


def _reflect_to(image_u8: torch.Tensor, side_px: int) -> torch.Tensor:
    """Extend uint8 (3, H, W) at the bottom and right by reflection until both sides are at least `side_px`."""
    image = image_u8.float()[None]
    while min(image.shape[2:]) < side_px:
        down = min(max(side_px - image.shape[2], 0), image.shape[2] - 1)
        right = min(max(side_px - image.shape[3], 0), image.shape[3] - 1)
        image = F.pad(image, (0, right, 0, down), mode="reflect")
    return image[0].to(torch.uint8)
