"""Training crops, and the pictures they are taken from.

A crop is taken from the source picture scaled down by a factor drawn per sample; "original size" is the scaled picture's, "crop"
the crop's origin in it, both in px, as SDXL means them.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from training.common.images import read_image, to_signed
from training.common.seeds import integer, uniform
from training.config.schema import TrainConfig
from training.data.manifest import Record, common_scale, data_digest, split_of


@dataclass(frozen=True)
class Crop:
    """image_CHW float32 in [-1, 1]; (height, width) of the scaled source and (top, left) of the crop in it, px; of a pair
    the LQ pixels of the same place, too, float32 in [0, 1].
    """

    image_CHW: torch.Tensor
    original_HW_px: tuple[int, int]
    origin_YX_px: tuple[int, int]
    lq_CHW: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One record's picture and, for a pair the LQ one, both uint8 (3, H, W), and how many times larger the first is (0 = no
    pair).
    """

    image_u8: torch.Tensor
    lq_u8: torch.Tensor | None = None
    lq_scale: int = 0


class ImageStore:
    """Source pictures in the order of their keys, read when first asked for, scaled down to a shorter side, the latest kept up
    to `cache_bytes`. Pairs keep their own sizes. Threads may share one store.
    """

    def __init__(self, records: list[Record], *, short_side_px: int, cache_bytes: int) -> None:
        self.records = sorted(records, key=lambda record: record.key)
        self._short_side_px = short_side_px
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._held: OrderedDict[int, Pictures] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.records)

    def pictures(self, index: int) -> Pictures:
        """Picture `index`, with the LQ one of a pair.

        Raises:
            ValueError: one cannot be read (any more) or has another size than in the manifest.
        """
        with self._lock:
            if index in self._held:
                self._held.move_to_end(index)
                return self._held[index]
        read = self._read(self.records[index])  # outside the lock: threads decode side by side
        with self._lock:
            held = self._held.setdefault(index, read)
            if held is read:
                self._held_bytes += _bytes(read)
            while self._held_bytes > self._cache_bytes and len(self._held) > 1:
                self._held_bytes -= _bytes(self._held.popitem(last=False)[1])
            return held

    def _read(self, record: Record) -> Pictures:
        image = read_image(record)
        height_px, width_px = image.shape[1:]
        if (height_px, width_px) != (record.height_px, record.width_px):
            raise ValueError(
                f"expected {record.height_px} x {record.width_px} px as in the manifest, got {height_px} x {width_px} px in "
                f"{record.path}, make the manifest again"
            )
        if record.lq is not None:
            lq = read_image(record.lq)
            common_scale((record.height_px, record.width_px), (int(lq.shape[1]), int(lq.shape[2])))
            return Pictures(image_u8=image, lq_u8=lq, lq_scale=record.lq_scale)
        return Pictures(image_u8=scale_short_side(image, self._short_side_px) if self._short_side_px else image)


def training_store(config: TrainConfig, data: Path) -> tuple[ImageStore, str]:
    """The training split of a manifest as a store, and its data digest.

    Raises:
        ValueError: the split is empty.
    """
    records = split_of(data, "train")
    if not records:
        raise ValueError(f"expected training pictures in {data}, got none in the split 'train', prepare more pictures")
    store = ImageStore(records, short_side_px=config.store_short_side_px, cache_bytes=config.cache_bytes)
    return store, data_digest(records)


def _bytes(pictures: Pictures) -> int:
    return pictures.image_u8.numel() + (0 if pictures.lq_u8 is None else pictures.lq_u8.numel())


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
