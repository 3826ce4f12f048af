"""Training crops.

A crop is taken from the source picture scaled down by a factor drawn per sample; "original size" is the scaled picture's, "crop"
the crop's origin in it, both in px, as SDXL means them. Of a pair made before training, HQ and LQ picture are cut at matching
places, and neither is scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.batches.store import Pictures
from training.common.images import to_signed, to_unit
from training.common.seeds import integer, uniform


@dataclass(frozen=True)
class Crop:
    """image_CHW float32 in [-1, 1]; (height, width) of the scaled source and (top, left) of the crop in it, px; of a pair
    the LQ pixels of the same place, too, float32 in [0, 1].
    """

    image_CHW: torch.Tensor
    original_HW_px: tuple[int, int]
    origin_YX_px: tuple[int, int]
    lq_CHW: torch.Tensor | None = None


def draw_crop(image_u8: torch.Tensor, crop_px: int, max_zoom_out: float, generator: torch.Generator) -> Crop:
    """One crop of `crop_px` by `crop_px` px, mirrored half of the time.

    Pictures with a side below crop_px are padded by reflection (official dataloader: BORDER_REFLECT_101).
    """
    height_px, width_px = image_u8.shape[1:]
    if min(height_px, width_px) < crop_px:
        image_u8 = _reflect_edge_once(image_u8, crop_px)
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


def _reflect_edge_once(image_u8: torch.Tensor, side_px: int) -> torch.Tensor:
    """Extend uint8 (3, H, W) at the bottom and right by reflection until both sides are at least `side_px`."""
    image = image_u8.float()[None]
    while min(image.shape[2:]) < side_px:
        down = min(max(side_px - image.shape[2], 0), image.shape[2] - 1)
        right = min(max(side_px - image.shape[3], 0), image.shape[3] - 1)
        image = F.pad(image, (0, right, 0, down), mode="reflect")
    return image[0].to(torch.uint8)


def cut(pictures: Pictures, crop_px: int, max_zoom_out: float, generator: torch.Generator) -> Crop:
    """One crop of a record: with the LQ pixels of a pair, else as `draw_crop`."""
    if pictures.lq_u8 is not None:
        return draw_pair_crop(pictures.image_u8, pictures.lq_u8, pictures.lq_scale, crop_px, generator)
    return draw_crop(pictures.image_u8, crop_px, max_zoom_out, generator)


def draw_pair_crop(hq_u8: torch.Tensor, lq_u8: torch.Tensor, scale: int, crop_px: int, generator: torch.Generator) -> Crop:
    """One crop of `crop_px` of the HQ picture and the LQ pixels that belong to it, both mirrored half of the time.

    No zoom: scaling would undo the LQ picture's degradation. Sides below crop_px are extended by reflection about the picture's
    edge, where both reflections agree.

    Raises:
        ValueError: crop_px is no multiple of `scale`.
    """
    if crop_px % scale:
        raise ValueError(
            f"expected a crop_px that is a multiple of the pairs' scale {scale}, got {crop_px}, choose another crop_px"
        )
    side = crop_px // scale
    rows, columns = (min(lq_u8.shape[axis], hq_u8.shape[axis] // scale) for axis in (1, 2))
    lq_u8 = _reflect_edge_twice(lq_u8[:, :rows, :columns], side)
    hq_u8 = _reflect_edge_twice(hq_u8[:, : rows * scale, : columns * scale], crop_px)
    rows, columns = lq_u8.shape[1:]
    top, left = integer(generator, 0, rows - side), integer(generator, 0, columns - side)
    lq = to_unit(lq_u8[:, top : top + side, left : left + side])
    top, left = top * scale, left * scale
    hq = to_signed(hq_u8[:, top : top + crop_px, left : left + crop_px])
    height, width = int(hq_u8.shape[1]), int(hq_u8.shape[2])
    if integer(generator, 0, 1):
        hq, lq, left = hq.flip(2), lq.flip(2), width - crop_px - left
    return Crop(hq.contiguous(), (height, width), (top, left), lq.contiguous())


def _reflect_edge_twice(image_u8: torch.Tensor, side_px: int) -> torch.Tensor:
    """Extend uint8 (3, H, W) at the bottom and right until both sides are at least `side_px`, the edge pixel twice at each
    turn.
    """
    for axis in (1, 2):
        size = image_u8.shape[axis]
        if size < side_px:
            indices = torch.arange(side_px) % (2 * size)
            image_u8 = image_u8.index_select(axis, torch.where(indices < size, indices, 2 * size - 1 - indices))
    return image_u8
