"""Validation of a fidelity decoder on fixed crops of the held-out pictures, restored once like the training crops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from training.batches.restored_cache import PICTURES, RestoredCache
from training.common.images import unit_to_u8, write_png
from training.loop.task import Batch, Metrics
from training.reports.sheets import sheet

AT_ONCE = 8
ROWS = 6
"""Crops on the sheet: more than are looked at, and it still fits a screen."""
Measure = Callable[[Batch], tuple[torch.Tensor, Metrics, torch.Tensor]]
"""A batch's loss (), metrics and pictures (B, 3, S, S)."""


class FidelityValidation:
    """`cache` holds the crops, S px wide, which are used whole."""

    def __init__(self, cache: RestoredCache, side_px: int, device: torch.device) -> None:
        self._cache = cache
        self._side_px = side_px
        self._device = device

    @torch.no_grad()
    def run(self, measure: Measure, step: int, folder: Path) -> dict[str, float]:
        """Mean loss and metrics over the crops, and folder/step-00000500.png with a row a crop: LQ, decoded, corrected, truth."""
        sums: dict[str, float] = {}
        strips: list[list[torch.Tensor]] = []
        count = len(self._cache)
        for start in range(0, count, AT_ONCE):
            rows = [self._cache.crop(index, 0, 0, self._side_px) for index in range(start, min(start + AT_ONCE, count))]
            batch = {name: torch.stack([row[name] for row in rows]).to(self._device) for name in rows[0]}
            loss, metrics, got = measure(batch)
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
            hq, lq, decoded = (batch[name] for name in PICTURES)
            for index in range(min(len(rows), ROWS - len(strips))):
                strips.append([unit_to_u8((picture[index].cpu() + 1.0) / 2.0) for picture in (lq, decoded, got, hq)])
        write_png(folder / f"step-{step:08d}.png", sheet(strips))
        return {name: value / count for name, value in sums.items()}
