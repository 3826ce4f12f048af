"""The LQ encoder's middle attention over features that stay where they are stored.

Up to MAX_FULL_POSITIONS every position sees every other, as in the whole image. Beyond, each sees those of a window of 2048 px,
and overlapping windows are blended, because the cost grows with the square of the image.

Shapes: C channels, N positions, H and W cells of 8 px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..attention import MAX_SCORE_BYTES, attend_in_chunks, queries_at_once
from ..lq_encoder import SpatialAttention
from .norm import Coefficients

MAX_FULL_POSITIONS = 512 * 512
"""4096 x 4096 px. At SDXL's widths the attention over that many positions costs twice what the convolutions cost, and its keys
and values take 1 GiB in fp32; at 8192 px it would be eight times the convolutions and 4 GiB."""
WINDOW_CELLS = 256
"""2048 x 2048 px: 16 times the area that the encoder sees in training (512 px crops), at 0.8 times the convolutions' cost."""
OVERLAP_CELLS = 64
"""A quarter: each position is computed 1.6 to 1.8 times, and the blend takes 512 px."""


@dataclass(frozen=True)
class MiddleAttention:
    """The middle's attention, ready to be added to features.

    Attributes:
        module: its layers.
        norm: its group norm with the whole image's statistics.
        device, dtype: where and in what to compute.
        progress: called with the query-key pairs done since the last call; may raise to stop.
    """

    module: SpatialAttention
    norm: Coefficients
    device: torch.device
    dtype: torch.dtype
    progress: Callable[[int], None]

    def add_to(self, x_1CHW: torch.Tensor) -> None:
        """Adds the attention's output to the features, in place."""
        if full_attention_fits(*x_1CHW.shape[-2:]):
            self._add_full(x_1CHW)
        else:
            self._add_windows(x_1CHW)

    def _add_full(self, x_1CHW: torch.Tensor) -> None:
        x_1CN = x_1CHW.view(*x_1CHW.shape[:2], -1)
        _, channels, positions = x_1CN.shape
        k_1NC, v_1NC = (torch.empty((1, positions, channels), device=self.device, dtype=self.dtype) for _ in range(2))
        at_once = min(queries_at_once(k_1NC), WINDOW_CELLS**2)
        for start in range(0, positions, at_once):
            tokens_1NC = self._tokens(x_1CN[..., start : start + at_once])
            k_1NC[:, start : start + at_once] = self.module.to_k(tokens_1NC)
            v_1NC[:, start : start + at_once] = self.module.to_v(tokens_1NC)
        for start in range(0, positions, at_once):
            part_1CN = x_1CN[..., start : start + at_once]
            self.progress(part_1CN.shape[-1] * positions)
            out_1NC = self.module.attention(self.module.to_q(self._tokens(part_1CN)), k_1NC, v_1NC, 1)
            part_1CN += self.module.to_out[0](out_1NC).transpose(1, 2).to(part_1CN)

    def _add_windows(self, x_1CHW: torch.Tensor) -> None:
        _, channels, height, width = x_1CHW.shape
        rows, columns = window_starts(height), window_starts(width)
        row_weights, column_weights = blend_weights(height), blend_weights(width)
        tall, wide = min(WINDOW_CELLS, height), min(WINDOW_CELLS, width)
        added_1CHW = x_1CHW.new_zeros((1, channels, tall, width))  # of the rows from this window's first one on
        for row, top in enumerate(rows):
            for column, left in enumerate(columns):
                self.progress((tall * wide) ** 2)
                part_1CHW = self._window(x_1CHW[..., top : top + tall, left : left + wide])
                weight_HW = row_weights[row][:, None] * column_weights[column]
                added_1CHW[..., left : left + wide] += part_1CHW.to(added_1CHW) * weight_HW.to(added_1CHW)
            # Rows above the next window are finished, and no window will look at them again.
            finished = (rows[row + 1] if row + 1 < len(rows) else height) - top
            x_1CHW[..., top : top + finished, :] += added_1CHW[..., :finished, :]
            kept_1CHW = added_1CHW[..., finished:, :].clone()
            added_1CHW.zero_()[..., : kept_1CHW.shape[-2], :] = kept_1CHW

    def _window(self, x_1CHW: torch.Tensor) -> torch.Tensor:
        tokens_1NC = self._tokens(x_1CHW.flatten(2))
        q_1NC, k_1NC, v_1NC = (layer(tokens_1NC) for layer in (self.module.to_q, self.module.to_k, self.module.to_v))
        out_1NC = self.module.to_out[0](attend_in_chunks(self.module.attention, q_1NC, k_1NC, v_1NC))
        return out_1NC.transpose(1, 2).unflatten(2, x_1CHW.shape[-2:])

    def _tokens(self, x_1CN: torch.Tensor) -> torch.Tensor:
        x_1CN1 = x_1CN.to(self.device, self.dtype).unsqueeze(-1)
        return self.norm.normalise(x_1CN1).to(self.dtype).squeeze(-1).transpose(1, 2)


def full_attention_fits(height_lat: int, width_lat: int) -> bool:
    """Whether every position of features of this size sees every other."""
    return height_lat * width_lat <= MAX_FULL_POSITIONS


def pairs(height_lat: int, width_lat: int) -> int:
    """Pairs of query and key that are computed for features of this size."""
    if full_attention_fits(height_lat, width_lat):
        return (height_lat * width_lat) ** 2
    windows = len(window_starts(height_lat)) * len(window_starts(width_lat))
    return windows * (min(WINDOW_CELLS, height_lat) * min(WINDOW_CELLS, width_lat)) ** 2


def attention_bytes(height_lat: int, width_lat: int, channels: int, itemsize: int) -> int:
    """What the attention holds on the device at its peak: keys, values, and of some part of the queries scores and output."""
    seen = height_lat * width_lat if full_attention_fits(height_lat, width_lat) else WINDOW_CELLS**2
    return 4 * seen * channels * itemsize + MAX_SCORE_BYTES


def window_starts(side_lat: int) -> list[int]:
    """First cells of the windows along a side: as few as overlap by OVERLAP_CELLS, evenly apart, the last one at the end."""
    if side_lat <= WINDOW_CELLS:
        return [0]
    steps = -(-(side_lat - WINDOW_CELLS) // (WINDOW_CELLS - OVERLAP_CELLS))
    return [round(i * (side_lat - WINDOW_CELLS) / steps) for i in range(steps + 1)]


def blend_weights(side_lat: int) -> list[torch.Tensor]:
    """Each window's weights along a side; they rise over OVERLAP_CELLS from a window's edge, and sum to 1 at every cell."""
    starts, window = window_starts(side_lat), min(WINDOW_CELLS, side_lat)
    cells_N = torch.arange(window, dtype=torch.float32) + 0.5
    hats: list[torch.Tensor] = []
    total_N = torch.zeros(side_lat)
    for start in starts:
        first, last = start == 0, start + window == side_lat
        rise_N = torch.ones(window) if first else (cells_N / OVERLAP_CELLS).clamp(max=1.0)
        fall_N = torch.ones(window) if last else ((window - cells_N) / OVERLAP_CELLS).clamp(max=1.0)
        hats.append(torch.sin(rise_N * fall_N * (torch.pi / 2)).square())  # smooth at both ends
        total_N[start : start + window] += hats[-1]
    return [hat_N / total_N[start : start + window] for start, hat_N in zip(starts, hats, strict=True)]
