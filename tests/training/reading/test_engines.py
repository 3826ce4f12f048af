"""The OCR engines themselves: what they read, that they repeat themselves, and what is said when one is missing."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from training.reading import rapidocr
from training.reading.engines import ENGINES, EngineMissing, OcrEngine, open_engine
from training.reading.match import iou, normalised
from training.reading.rapidocr import words_of_line
from training.reading.tesseract import words_of
from training.reading.word_pictures import word_box

TEXTS = (("Garden", 12, 40), ("market", 130, 40), ("summer", 12, 100))


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> OcrEngine:
    try:
        return open_engine(request.param)
    except EngineMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def page() -> torch.Tensor:
    canvas = Image.new("RGB", (256, 128), (240, 240, 230))
    for text, x, y in TEXTS:
        ImageDraw.Draw(canvas).text((x, y), text, font=ImageFont.load_default(28), fill=(20, 20, 60), anchor="ls")
    return torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).reshape(128, 256, 3).permute(2, 0, 1).contiguous()


def test_an_engine_reads_words_and_places(engine: OcrEngine, page: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an engine went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    words = engine.read(page)
    assert sorted(normalised(word.text) for word in words) == ["garden", "market", "summer"]
    font = ImageFont.load_default(28)
    assert isinstance(font, ImageFont.FreeTypeFont)
    for text, x, y in TEXTS:
        (word,) = [word for word in words if word.text == text]
        assert iou(word.box_px, word_box(font, text, x, y)) > 0.55
        assert 0.5 < word.confidence <= 1
    assert engine.read(page) == words, "the same picture gives the same words"
    assert engine.read(torch.full_like(page, 128)) == []
    assert {"version"} < set(engine.settings)


def test_unknown_and_missing_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected OCR engines among tesseract, rapidocr, got 'easy', correct --ocr"):
        open_engine("easy")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="install tesseract and its English data .* no `tesseract` on the PATH"):
        open_engine("tesseract")
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\necho 'List of available languages (1):'\necho osd\n")
    program.chmod(0o755)
    with pytest.raises(EngineMissing, match="has no language 'eng'"):
        open_engine("tesseract")
    program.write_text("#!/bin/sh\necho 'it broke' >&2\nexit 3\n")
    with pytest.raises(ValueError, match=r"got code 3 \(it broke\)"):
        open_engine("tesseract")
    # Another version brings other files; it must be told, not downloaded.
    monkeypatch.setattr(rapidocr, "DETECTOR", "PP-OCRv9_det.onnx")
    with pytest.raises(EngineMissing, match="pip install rapidocr==.*"):
        open_engine("rapidocr")


def test_tesseract_lines_become_words() -> None:
    tsv = "\n".join(
        [
            "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext",
            "4\t1\t1\t1\t1\t0\t20\t30\t200\t40\t-1\t",
            '5\t1\t1\t1\t1\t1\t20\t30\t81\t40\t91.5\t"quoted',
            "5\t1\t1\t1\t1\t2\t120\t30\t100\t40\t95\t ",
        ]
    )
    (word,) = words_of(tsv, 2)
    assert (word.text, word.box_px, word.confidence) == ('"quoted', (10, 15, 50.5, 35), 0.915)
    assert words_of("level\tpage_num", 2) == []


def square(left: float, right: float) -> list[list[float]]:
    return [[left, 10], [right, 10], [right, 30], [left, 30]]


def test_rapidocr_lines_become_words() -> None:
    characters = [("a", square(10, 18)), ("b", square(20, 28)), ("c", square(60, 70))]
    words = words_of_line("ab  c", square(8, 72), 0.9, characters)
    assert [(word.text, word.box_px) for word in words] == [("ab", (10, 10, 28, 30)), ("c", (60, 10, 70, 30))]
    # Without the letters' boxes the line's box is shared out: 5 characters in 50 px.
    words = words_of_line("ab  c", square(0, 50), 0.9, [("x", square(0, 1))])
    assert [(word.text, word.box_px) for word in words] == [("ab", (0, 10, 20, 30)), ("c", (40, 10, 50, 30))]
    tilted = [[0, 0], [100, 10], [100, 30], [0, 20]]
    assert words_of_line("ab cd", tilted, 0.9, [])[1].box_px == (60, 6, 100, 30)
    assert words_of_line(" ", square(0, 9), 0.9, []) == []


def test_where_tesseract_is_expected() -> None:
    """So that a machine that has it does not skip its test unnoticed."""
    if shutil.which("tesseract") is None:
        pytest.skip("tesseract is not installed")
    assert open_engine("tesseract").name == "tesseract"
