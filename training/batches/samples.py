"""Which picture each sample of a step's batch is cut from, and its crop. Nothing here depends on processes, workers,
micro-batches or resuming.

Pictures come in a seeded order that uses each once before any comes again.

Threads, not torch's DataLoader: its workers are processes. Each would decode, keep and count unreadable pictures for itself, and
Ctrl-C would end them before the step is done. Nor is it faster: in two turns on two busy cores (two workers, crops of 256 px, the
same samples) 40 steps took 52 and 56 s by threads, 84 and 97 s by a DataLoader; the first batch came after 1 s, and after 3 s.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import torch

from training.batches.crops import cut
from training.batches.latent_cache import LatentCache
from training.batches.order import SeededOrder
from training.batches.store import ImageStore, Unreadable, others
from training.common.seeds import generator_for
from training.config.schema import TrainConfig
from training.model.networks import time_ids


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One crop of a step, S px wide.

    image_CHW: float32 (3, S, S) in [-1, 1]. lq_CHW: its LQ picture's pixels, float32 (3, s, s) in [0, 1], or None. posterior_CHW:
    float16 (8, S/8, S/8), mean and log variance in the VAE's own units, or None. time_ids_6: SDXL's six numbers, float32.
    generator: for all further draws of this sample.
    """

    key: str
    image_CHW: torch.Tensor
    lq_CHW: torch.Tensor | None
    posterior_CHW: torch.Tensor | None
    time_ids_6: torch.Tensor
    caption: str
    generator: torch.Generator


class SampleSource:
    """The samples of a run: crops of the store's pictures, or those of the latent cache.

    Raises:
        ValueError: the crops do not fit the pairs' scales.
    """

    def __init__(self, config: TrainConfig, store: ImageStore, cache: LatentCache | None = None) -> None:
        for crop_px in {config.crop_px, config.late_crop_px} - {0}:
            for record in store.records:
                if record.lq_scale and crop_px % record.lq_scale:
                    raise ValueError(
                        f"expected a crop_px that is a multiple of every pair's scale, got {crop_px} and scale {record.lq_scale} "
                        f"of {record.key!r}, choose another crop_px"
                    )
        self.config = config
        self.store = store
        self.cache = cache
        self._unreadable = Unreadable(store, config.max_unreadable_frac)
        self._order = SeededOrder(config, len(self))
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[int, int], Future[Sample]] = {}

    def __len__(self) -> int:
        """Pictures, or crops of the latent cache."""
        return len(self.store if self.cache is None else self.cache)

    @property
    def unreadable(self) -> dict[str, str]:
        """Reason by key of the pictures that could not be read in this process."""
        return dict(self._unreadable.reasons)

    def prefetch(self, step: int, indices: range) -> None:
        """Begin to read and cut these, in `config.workers` threads; with 0 nothing happens."""
        if self.config.workers:
            self._pool = self._pool or _quiet_pool(self.config.workers)
            for index in indices:
                if (step, index) not in self._ahead:
                    self._ahead[step, index] = self._pool.submit(self._sample, step, index)

    def samples(self, step: int, indices: range) -> list[Sample]:
        """The samples of these indices in the batch of optimiser step `step` (both from 0).

        Raises:
            ValueError: when too many pictures have turned unreadable.
        """
        for wanted in [wanted for wanted in self._ahead if wanted[0] < step]:
            self._ahead.pop(wanted).cancel()  # asked for ahead by a step that was never taken
        self.prefetch(step, indices)
        futures = [self._ahead.pop((step, index), None) for index in indices]
        return [
            self._sample(step, index) if future is None else future.result()
            for index, future in zip(indices, futures, strict=True)
        ]

    def _sample(self, step: int, index: int) -> Sample:
        cache, crop_px = self.cache, self.config.crops_at(step)[1]
        replacements = others(self.config.seed, len(self), self.config.stage, "replacement", step, index)
        items = chain((self._order.item(step, index),), replacements)
        if cache is None:
            number, pictures = self._unreadable.first_readable(items)
            generator = self._generator(step, index, number)
            crop, posterior = cut(pictures, crop_px, self.config.max_zoom_out, generator), None
        else:
            item, pictures = self._unreadable.first_readable(items, cache.record)
            number = cache.record(item)
            generator = self._generator(step, index, number)
            crop, posterior = cache.crop(item, pictures), cache.posterior_NCHW[item]
        record = self.store.records[number]
        return Sample(
            key=record.key, image_CHW=crop.image_CHW, lq_CHW=crop.lq_CHW, posterior_CHW=posterior,
            time_ids_6=time_ids(crop.original_HW_px, crop.origin_YX_px, self.config.target_size_px),
            caption=record.caption, generator=generator,
        )  # fmt: skip

    def _generator(self, step: int, index: int, number: int) -> torch.Generator:
        return generator_for(self.config.seed, self.config.stage, step, index, self.store.records[number].key)


def _quiet_pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose torch operations each use one core: otherwise every one of them brings a team that fights over the cores."""
    ready = threading.Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread takes the common number at its first use, which would undo the next line later
        torch.set_num_threads(1)
        ready.wait()

    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="samples")
    for _ in range(threads):
        pool.submit(begin)
    ready.wait()
    torch.set_num_threads(own)  # the call in the threads also changed the default of threads to come
    return pool
