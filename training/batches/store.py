"""The pictures that crops are taken from: read when first asked for, the latest kept.

One that could be read when the manifest was made and cannot be now is replaced by another and named once; too many stop the run.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from training.common.images import read_image
from training.common.seeds import generator_for, integer
from training.config.schema import TrainConfig
from training.data.manifest import Record, common_scale, data_digest, split_of

REPLACEMENTS_TRIED = 100
"""With 1 % unreadable, that many failures in a row do not happen."""
NAMED = 5
"""So many keys are named in the error."""


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


def others(seed: int, count: int, *parts: int | str) -> Iterator[int]:
    """What to take, of so many, instead of an unreadable one; drawn by the seed and the names alone."""
    generator = generator_for(seed, *parts)
    for _ in range(REPLACEMENTS_TRIED):
        yield integer(generator, 0, count - 1)


class Unreadable:
    """Reads from a store and counts what cannot be read; `reasons` by key. Threads may share one."""

    def __init__(self, store: ImageStore, max_frac: float) -> None:
        self.reasons: dict[str, str] = {}
        self._store = store
        self._max_frac = max_frac
        self._lock = threading.Lock()

    def first_readable(self, items: Iterable[int], record_of: Callable[[int], int] = lambda item: item) -> tuple[int, Pictures]:
        """The first of `items` whose picture (record number `record_of(item)`) can be read, and the picture.

        A known failure is not tried again, so which item is taken depends on the files alone.

        Raises:
            ValueError: when more than the allowed share (or every picture) has failed; one failure is always allowed.
        """
        # Not in __init__: the memory estimate makes tasks without a store.
        allowed = min(max(1, int(self._max_frac * len(self._store))), len(self._store) - 1)
        for item in items:
            record = record_of(item)
            key = self._store.records[record].key
            if key not in self.reasons:
                try:
                    return item, self._store.pictures(record)
                except ValueError as error:
                    self._note(key, str(error))
            if len(self.reasons) > allowed:
                break
        keys = sorted(self.reasons)
        raise ValueError(
            f"expected at most {allowed} of {len(self._store)} pictures to have turned unreadable, got {len(keys)} "
            f"({', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''}), restore them or raise max_unreadable_frac"
        )

    def _note(self, key: str, reason: str) -> None:
        with self._lock:
            if key not in self.reasons:
                self.reasons[key] = reason
                tqdm.write(f"warning: {key!r} is replaced by another picture: {reason}", file=sys.stderr)
