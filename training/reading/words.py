"""What an OCR engine is here: a name, settings that go into the report, and a reader of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from training.reading.annotations import Box


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word that an engine found. `confidence` is the engine's own, 0 to 1, and cannot be compared between engines."""

    text: str
    box_px: Box
    confidence: float


class OcrEngine(Protocol):
    """An engine that is installed and open."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, str | int | float]:
        """Version and all that decides what is read, for the report."""
        ...

    def read(self, image_CHW_u8: torch.Tensor) -> list[Word]:
        """The words of a picture, uint8 (3, H, W), with boxes in its own px. The same picture gives the same words."""
        ...


class EngineMissing(Exception):
    """An engine that is not installed. The text says what to install."""
