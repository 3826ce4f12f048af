"""What an OCR engine is here: a name, settings that go into the report, and a reader of pictures. The engines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from training.reading.annotations import Box

if TYPE_CHECKING:
    import torch


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


def _tesseract() -> OcrEngine:
    from training.reading.tesseract import Tesseract

    return Tesseract()


def _rapidocr() -> OcrEngine:
    from training.reading.rapidocr import RapidOcr

    return RapidOcr()


_OPEN: dict[str, Callable[[], OcrEngine]] = {"tesseract": _tesseract, "rapidocr": _rapidocr}
ENGINES = tuple(_OPEN)


def open_engine(name: str) -> OcrEngine:
    """The engine of that name, ready to read.

    Raises:
        ValueError: an unknown name.
        EngineMissing: one that is not installed.
    """
    if name not in _OPEN:
        raise ValueError(f"expected OCR engines among {', '.join(ENGINES)}, got {name!r}, correct --ocr")
    return _OPEN[name]()
