"""Pairs made before training: an HQ picture and an LQ picture, joined by key, cut at matching places."""

from __future__ import annotations

import torch

from training.batches.crops import Crop, Pictures, draw_crop
from training.common.images import to_signed, to_unit
from training.common.seeds import integer


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
