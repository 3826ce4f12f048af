"""Text sets: what is written where, again and again the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from training.cli import main
from training.reading.annotations import AnnotatedPicture, TrueWord, read_annotations, write_annotations
from training.reading.word_pictures import WORDS, render, word_box


def made(folder: Path, *options: str) -> dict[str, bytes]:
    assert main(["text-set", str(folder), *options]) == 0
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_arguments_make_the_same_files(tmp_path: Path) -> None:
    options = ("--count", "3", "--size", "24", "32", "--side", "256")
    first = made(tmp_path / "a", *options)
    assert first == made(tmp_path / "b", *options)
    assert sorted(first) == [
        "annotations.json", "made.jsonl", "words-0-24px-0000.png", "words-0-24px-0002.png", "words-0-32px-0001.png",
    ]  # fmt: skip
    other = made(tmp_path / "c", *options, "--seed", "1")
    assert "words-1-24px-0000.png" in other and other["words-1-24px-0000.png"] != first["words-0-24px-0000.png"]


def test_words_lie_inside_their_boxes_and_the_picture() -> None:
    for index in range(6):
        font = ImageFont.load_default(24)
        assert isinstance(font, ImageFont.FreeTypeFont)
        picture, words = render(5, index, font=font, font_px=24, side_px=256)
        assert picture.size == (256, 256) and len(words) >= 5
        for word in words:
            left, top, right, bottom = (int(edge) for edge in word.box_px)
            assert 0 <= left < right <= 256 and 0 <= top < bottom <= 256
            assert word.text.casefold() in WORDS
            grey = np.asarray(picture.crop((left, top, right, bottom)).convert("L"), dtype=np.int32)
            assert grey.max() - grey.min() > 80, "ink and paper"
        boxes = [word.box_px for word in words]
        overlaps = [
            (a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        ]
        assert overlaps == []


def test_a_word_box_holds_the_ink_and_is_at_least_a_capital_high() -> None:
    font = ImageFont.load_default(32)
    assert isinstance(font, ImageFont.FreeTypeFont)
    capital = word_box(font, "H", 20, 100)
    flat, deep, tall = (word_box(font, text, 20, 100) for text in ("sum", "page", "Sad"))
    assert flat[1] == capital[1] and flat[3] >= capital[3] > 100
    assert deep[3] > capital[3] + 3, "descenders are in it"
    assert tall[1] <= capital[1] and word_box(font, "sum", 27, 100)[0] == flat[0] + 7
    for text in ("sum", "page", "Sad", "jolly"):
        canvas = Image.new("L", (200, 200))
        ImageDraw.Draw(canvas).text((20, 100), text, font=font, fill=255, anchor="ls")
        ink, box = canvas.getbbox(), word_box(font, text, 20, 100)
        assert ink is not None
        assert (ink[0] - box[0], box[2] - ink[2]) == pytest.approx((0.07 * 32, 0.07 * 32), abs=0.01)
        assert ink[1] - box[1] >= 2 and box[3] - ink[3] >= 2


def test_a_font_file_and_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*options: str) -> str:
        assert main(["text-set", str(tmp_path / "bad"), *options]) == 2
        assert not (tmp_path / "bad").exists(), "nothing is half written"
        return capsys.readouterr().err

    assert "expected at least 1 picture" in told("--count", "0")
    assert "expected font sizes that differ" in told("--size", "24", "24")
    assert "expected font sizes of 8 px and more" in told("--size", "24", "4")
    assert "fits into 256 px, got 80, correct --size or raise --side" in told("--size", "80")
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    assert "expected a font file (.ttf, .otf)" in told("--font", str(broken))
    assert "expected a font file" in told("--font", str(tmp_path / "none.ttf"))
    file = tmp_path / "font.ttf"
    default = ImageFont.load_default(24)
    assert isinstance(default, ImageFont.FreeTypeFont)
    source = default.path
    file.write_bytes(source.getvalue() if hasattr(source, "getvalue") else Path(source).read_bytes())
    assert made(tmp_path / "own", "--count", "1", "--font", str(file)) == made(tmp_path / "default", "--count", "1")


def test_annotations_go_to_the_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    pictures = {
        "a/b": AnnotatedPicture(words=(TrueWord(text="Straße", box_px=(1, 2, 30, 14)),), size_px=(64, 32)),
        "c": AnnotatedPicture(words=(), size_px=None),
    }
    write_annotations(path, pictures)
    assert read_annotations(path) == pictures
    content = json.loads(path.read_text())
    content["pictures"]["c"] = {"words": [{"text": "x", "box_px": [[5, 1], [9, 3], [7, 8]], "rotated": True}], "licence": "own"}
    path.write_text(json.dumps(content))
    (word,) = read_annotations(path)["c"].words
    assert word.box_px == (5, 1, 9, 8), "a polygon's bounding box"
