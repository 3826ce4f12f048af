"""The OCR engines by name."""

from __future__ import annotations

from training.reading.rapidocr import RapidOcr
from training.reading.tesseract import Tesseract
from training.reading.words import EngineMissing, OcrEngine, Word

__all__ = ["ENGINES", "EngineMissing", "OcrEngine", "Word", "open_engine"]

_CLASSES: dict[str, type[Tesseract] | type[RapidOcr]] = {"tesseract": Tesseract, "rapidocr": RapidOcr}
ENGINES = tuple(_CLASSES)


def open_engine(name: str) -> OcrEngine:
    """The engine of that name, ready to read.

    Raises:
        ValueError: an unknown name.
        EngineMissing: one that is not installed.
    """
    if name not in _CLASSES:
        raise ValueError(f"expected OCR engines among {', '.join(ENGINES)}, got {name!r}, correct --ocr")
    return _CLASSES[name]()
