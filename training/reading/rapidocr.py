"""The engine `rapidocr`: PP-OCR's networks on onnxruntime, from the files that the rapidocr wheel brings along."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.reading.engines import EngineMissing, Word

INSTALL = "pip install rapidocr==3.10.0 onnxruntime opencv-python-headless"
DETECTOR = "PP-OCRv6_det_small.onnx"
RECOGNISER = "PP-OCRv6_rec_small.onnx"
"""The files of rapidocr 3.10.0. Named here so that no other version reads with other networks unnoticed, and because rapidocr
downloads whatever it is not given a path for."""


class RapidOcr:
    """Opening it loads both networks.

    Raises:
        EngineMissing: the package or its files are not there; nothing is downloaded.
    """

    name = "rapidocr"

    def __init__(self) -> None:
        try:
            import rapidocr
        except ImportError as error:
            raise EngineMissing(f"{INSTALL}; {error}") from error
        folder = Path(rapidocr.__file__).parent / "models"
        absent = [name for name in (DETECTOR, RECOGNISER) if not (folder / name).is_file()]
        version = importlib.metadata.version("rapidocr")
        if absent:
            raise EngineMissing(f"{INSTALL}; rapidocr {version} has no {' and no '.join(absent)} in {folder}")
        self._settings = {
            "version": version,
            "onnxruntime": importlib.metadata.version("onnxruntime"),
            "detector": DETECTOR,
            "recogniser": RECOGNISER,
            "least_line_confidence": 0.5,
            "shorter_side_enlarged_to_px": 736,
        }
        self._engine: Any = _open(folder, self._settings)

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What decides what is read."""
        return self._settings

    def read(self, image_CHW_u8: torch.Tensor) -> list[Word]:
        """The words of a picture, uint8 (3, H, W). A word's confidence is that of its line."""
        image_HWC_bgr = image_CHW_u8.flip(0).permute(1, 2, 0).contiguous().numpy()
        found = self._engine(image_HWC_bgr)
        if not found.txts:
            return []
        words: list[Word] = []
        characters: list[Any] = list(found.word_results)
        # A line without any character box is left out of them: then nobody knows which boxes are whose.
        if len(characters) != len(found.txts):
            characters = [()] * len(found.txts)
        for text, quad, confidence, boxes in zip(found.txts, found.boxes, found.scores, characters, strict=True):
            words += words_of_line(text, quad.tolist(), float(confidence), [(char, points) for char, _, points in boxes])
        return words


Points = Sequence[Sequence[float]]


def words_of_line(text: str, quad: Points, confidence: float, characters: Sequence[tuple[str, Points]]) -> list[Word]:
    """A line divided at its spaces. `characters` are its letters without the spaces, each with the corners of its box; where
    they do not spell the line, the line's own box, `quad`, is divided by the number of characters.

    rapidocr has a word option too, but it divides wherever two letters stand far apart, as wide capitals do.
    """
    pieces = text.split()
    spelled = "".join(character for character, _ in characters) == "".join(pieces)
    words: list[Word] = []
    used = 0
    for piece, start in zip(pieces, _starts(text), strict=True):
        if spelled:
            corners = [point for _, points in characters[used : used + len(piece)] for point in points]
        else:
            corners = [*_along(quad, start / len(text)), *_along(quad, (start + len(piece)) / len(text))]
        used += len(piece)
        xs, ys = [float(corner[0]) for corner in corners], [float(corner[1]) for corner in corners]
        words.append(Word(text=piece, box_px=(min(xs), min(ys), max(xs), max(ys)), confidence=confidence))
    return words


def _starts(text: str) -> list[int]:
    return [i for i, char in enumerate(text) if not char.isspace() and (i == 0 or text[i - 1].isspace())]


def _along(quad: Points, frac: float) -> Points:
    """The points at a fraction of a line's length, on its upper and its lower edge; `quad` goes clockwise from the upper left."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
    return [(ax + (bx - ax) * frac, ay + (by - ay) * frac), (dx + (cx - dx) * frac, dy + (cy - dy) * frac)]


def _open(folder: Path, settings: dict[str, Any]) -> Any:
    from rapidocr import EngineType, LangDet, LangRec, ModelType, OCRVersion, RapidOCR

    parameters: dict[str, Any] = {
        "Global.log_level": "critical",  # "the result is empty" is a result here
        "Global.use_cls": False,  # would turn lines round that it takes for upside down
        "Global.text_score": settings["least_line_confidence"],
        "Global.return_word_box": True,
        "Global.return_single_char_box": True,
        "Det.limit_type": "min",
        "Det.limit_side_len": settings["shorter_side_enlarged_to_px"],
        "Det.lang_type": LangDet.CH,
        "Rec.lang_type": LangRec.CH,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # sums in another order round differently
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    for part, file in (("Det", DETECTOR), ("Rec", RECOGNISER)):
        parameters[f"{part}.engine_type"] = EngineType.ONNXRUNTIME
        parameters[f"{part}.ocr_version"] = OCRVersion.PPOCRV6
        parameters[f"{part}.model_type"] = ModelType.SMALL
        parameters[f"{part}.model_path"] = str(folder / file)
    return RapidOCR(params=parameters)
