"""What other packs' nodes may give to ours, sound and unsound, by type and kind: images, latents, masks, prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NAN = float("nan")
# Widths of the tiny model in tiny.py.
CONTEXT_CHANNELS, POOLED_CHANNELS = 64, 32


def photo(width: int, height: int, batch: int = 1, channels: int = 3) -> torch.Tensor:
    """Something smooth in [0, 1], always the same."""
    g = torch.Generator().manual_seed(width * 31 + height)
    small = torch.rand(batch, channels, max(2, height // 8), max(2, width // 8), generator=g)
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear").movedim(1, -1).contiguous()


def _with(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[tensor.numel() // 2] = value
    return tensor


IMAGES: dict[str, Callable[[int, int], torch.Tensor]] = {
    "photo": lambda w, h: photo(w, h),
    "alpha": lambda w, h: photo(w, h, channels=4),
    "two": lambda w, h: photo(w, h, batch=2),
    "three": lambda w, h: photo(w, h, batch=3),
    "black": lambda w, h: torch.zeros(1, h, w, 3),
    "out of range": lambda w, h: photo(w, h) * 9 - 4,
    "half": lambda w, h: photo(w, h).half(),
    "double": lambda w, h: photo(w, h).double(),
    "not contiguous": lambda w, h: photo(w * 2, h)[:, :, ::2],
    "one pixel": lambda w, h: photo(1, 1),
    "one column": lambda w, h: photo(1, h),
    "one row": lambda w, h: photo(w, 1),
    "one channel": lambda w, h: photo(w, h, channels=1),
    "two channels": lambda w, h: photo(w, h, channels=2),
    "five channels": lambda w, h: photo(w, h, channels=5),
    "NaN": lambda w, h: _with(photo(w, h), NAN),
    "infinite": lambda w, h: _with(photo(w, h), float("inf")),
    "empty batch": lambda w, h: torch.zeros(0, h, w, 3),
    "no height": lambda w, h: torch.zeros(1, 0, w, 3),
    "three axes": lambda w, h: photo(w, h)[0],
    "whole numbers": lambda w, h: (photo(w, h) * 255).to(torch.uint8),
    "none": lambda w, h: None,
}
LATENTS: dict[str, Callable[[int, int], Any]] = {
    "SDXL": lambda w, h: {"samples": _noise(1, 4, h, w)},
    "two": lambda w, h: {"samples": _noise(2, 4, h, w)},
    "noise mask": lambda w, h: {"samples": _noise(1, 4, h, w), "noise_mask": torch.full((1, 1, h * 8, w * 8), 0.5)},
    "batch index": lambda w, h: {"samples": _noise(1, 4, h, w), "batch_index": [3]},
    "half": lambda w, h: {"samples": _noise(1, 4, h, w).half()},
    "zeros": lambda w, h: {"samples": torch.zeros(1, 4, h, w)},
    "one cell": lambda w, h: {"samples": _noise(1, 4, 1, 1)},
    "wide": lambda w, h: {"samples": _noise(1, 4, h, w + 3)},
    "SD3": lambda w, h: {"samples": _noise(1, 16, h, w)},
    "film": lambda w, h: {"samples": _noise(1, 4, 1, h, w)},
    "NaN": lambda w, h: {"samples": _with(_noise(1, 4, h, w), NAN)},
    "empty batch": lambda w, h: {"samples": torch.zeros(0, 4, h, w)},
    "no height": lambda w, h: {"samples": torch.zeros(1, 4, 0, w)},
    "two axes": lambda w, h: {"samples": _noise(h, w)},
    "no samples": lambda w, h: {},
    "samples none": lambda w, h: {"samples": None},
    "none": lambda w, h: None,
}
MASKS: dict[str, Callable[[int, int], Any]] = {
    "half": lambda w, h: torch.full((1, h, w), 0.5),
    "two axes": lambda w, h: torch.full((h, w), 0.5),
    "other size": lambda w, h: torch.full((1, 7, 3), 0.5),
    "one pixel": lambda w, h: torch.ones(1, 1, 1),
    "zeros": lambda w, h: torch.zeros(1, h, w),
    "out of range": lambda w, h: torch.full((1, h, w), 7.0),
    "three": lambda w, h: torch.full((3, h, w), 0.5),
    "whole numbers": lambda w, h: torch.ones(1, h, w, dtype=torch.uint8),
    "four axes": lambda w, h: torch.full((1, 1, h, w), 0.5),
    "NaN": lambda w, h: _with(torch.full((1, h, w), 0.5), NAN),
    "empty batch": lambda w, h: torch.zeros(0, h, w),
    "no width": lambda w, h: torch.zeros(1, h, 0),
    "one axis": lambda w, h: torch.ones(w),
    "none": lambda w, h: None,
}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


def _prompt(
    tokens: int = 77, channels: int = CONTEXT_CHANNELS, pooled: int = POOLED_CHANNELS, images: int = 1, **more: Any
) -> list:
    return [[_noise(images, tokens, channels), {"pooled_output": _noise(images, pooled), **more}]]


PROMPTS: dict[str, Callable[[], Any]] = {
    "SDXL": lambda: _prompt(),
    "long": lambda: _prompt(154),
    "two": lambda: _prompt() + _prompt(154),
    "batch of two": lambda: _prompt(images=2),
    "area": lambda: _prompt(area=(4, 4, 0, 0), strength=1.0, set_area_to_bounds=False),
    "mask": lambda: _prompt(mask=torch.ones(1, 8, 8), mask_strength=1.0, set_area_to_bounds=False),
    "later": lambda: _prompt(start_percent=0.5, end_percent=1.0),
    "half": lambda: [[_prompt()[0][0].half(), {"pooled_output": _noise(1, POOLED_CHANNELS).half()}]],
    "SD1.5": lambda: [[_noise(1, 77, 768), {}]],
    "SD3": lambda: _prompt(channels=4096, pooled=2048),
    "no pooled": lambda: [[_noise(1, 77, CONTEXT_CHANNELS), {}]],
    "pooled none": lambda: [[_noise(1, 77, CONTEXT_CHANNELS), {"pooled_output": None}]],
    "NaN": lambda: [[_with(_noise(1, 77, CONTEXT_CHANNELS), NAN), {"pooled_output": _noise(1, POOLED_CHANNELS)}]],
    "empty": lambda: [],
    "none": lambda: None,
}
