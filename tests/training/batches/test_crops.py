"""Crops and SDXL's size conditioning."""

from __future__ import annotations

from pathlib import Path

import torch
from support.trainer import picture

from training.batches.crops import draw_crop
from training.batches.store import ImageStore, scale_short_side
from training.common.images import to_signed
from training.common.seeds import generator_for
from training.data import manifest
from training.model.networks import time_ids


def test_origin_and_original_size_describe_the_crop() -> None:
    image = picture(0, 120, 160)
    mirrored = 0
    for index in range(40):
        crop = draw_crop(image, 32, 1.0, generator_for(0, index))
        top, left = crop.origin_YX_px
        assert crop.original_HW_px == (120, 160)
        straight = to_signed(image[:, top : top + 32, left : left + 32])
        flipped = to_signed(image.flip(2)[:, top : top + 32, left : left + 32])
        mirrored += torch.equal(crop.image_CHW, flipped)
        assert torch.equal(crop.image_CHW, straight) or torch.equal(crop.image_CHW, flipped)
    assert 8 <= mirrored <= 32


def test_zoomed_crops_report_the_scaled_picture() -> None:
    sizes = set()
    for index in range(60):
        crop = draw_crop(picture(1, 128, 256), 32, 4.0, generator_for(1, index))
        assert crop.image_CHW.shape == (3, 32, 32)
        height, width = crop.original_HW_px
        assert 32 <= height <= 128 and abs(width - 2 * height) <= 1
        assert 0 <= crop.origin_YX_px[0] <= height - 32 + 1 and 0 <= crop.origin_YX_px[1] <= width - 32 + 1
        sizes.add(height)
    assert min(sizes) < 45 and max(sizes) > 90


def test_small_pictures_are_reflected() -> None:
    crop = draw_crop(picture(2, 20, 9), 32, 2.0, generator_for(0))
    assert crop.image_CHW.shape == (3, 32, 32)


def test_time_ids_are_fp32_and_exact_for_large_pictures() -> None:
    assert time_ids((4097, 2049), (2051, 8193), 256).tolist() == [4097, 2049, 2051, 8193, 256, 256]


def test_store_keeps_its_limit_and_scales_once(data: Path) -> None:
    store = ImageStore(manifest.read(data), short_side_px=48, cache_bytes=3 * 48 * 64 * 2)
    first = store.pictures(0).image_u8
    assert first.shape == (3, 48, 64)
    assert store.pictures(0).image_u8 is first
    for index in range(1, 6):
        store.pictures(index)
    again = store.pictures(0).image_u8
    assert again is not first and torch.equal(again, first)
    assert scale_short_side(picture(0, 30, 40), 48).shape == (3, 30, 40)
