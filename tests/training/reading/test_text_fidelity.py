"""Text fidelity: counts against cases counted by hand, intervals, and what bad input is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.cli import main
from training.common.images import write_png
from training.reading import fidelity
from training.reading.annotations import TrueWord, read_annotations
from training.reading.engines import EngineMissing, Word
from training.reading.match import Counts, MatchRule, count_words, edit_distance, iou, normalised, similarity
from training.reports.bootstrap import ratio_interval

A = (0.0, 0.0, 40.0, 20.0)
B = (60.0, 0.0, 100.0, 20.0)
C = (0.0, 40.0, 40.0, 60.0)
BOTH = (0.0, 0.0, 100.0, 20.0)
"""The box around A and B: IoU with each is 40 / 100."""


def found(*words: tuple[str, tuple[float, float, float, float]]) -> list[Word]:
    return [Word(text=text, box_px=box, confidence=0.9) for text, box in words]


def true(*words: tuple[str, tuple[float, float, float, float]]) -> list[TrueWord]:
    return [TrueWord(text=text, box_px=box) for text, box in words]


def counts(true: int, found: int, boxes: int, words: int, similarity: float, characters: int, right: int) -> Counts:
    return Counts(
        true=true, found=found, boxes=boxes, words=words, similarity=similarity, characters=characters, characters_right=right
    )


GARDEN_MARKET = true(("garden", A), ("market", B))
CASES = {
    "all right": (found(("market", B), ("garden", A)), GARDEN_MARKET, counts(2, 2, 2, 2, 2.0, 12, 12)),
    # One of the two is over: 1 of 3 found words more than there are.
    "found twice": (
        found(("garden", A), ("garden", (1.0, 0.0, 40.0, 20.0)), ("market", B)), GARDEN_MARKET, counts(2, 3, 2, 2, 2.0, 12, 12),
    ),
    "the closer of two is taken, right or not": (
        found(("garden", (4.0, 0.0, 40.0, 20.0)), ("garten", A)), true(("garden", A)), counts(1, 2, 1, 0, 1 - 1 / 6, 6, 5),
    ),
    "of two equal boxes the right one is taken": (
        found(("garten", A), ("garden", A)), true(("garden", A)), counts(1, 2, 1, 1, 1.0, 6, 6),
    ),
    # The box of both has IoU 0.4 with either.
    "two words merged": (found(("gardenmarket", BOTH)), GARDEN_MARKET, counts(2, 1, 0, 0, 0.0, 12, 0)),
    # 24 of 40 px: IoU 0.6 for the longer piece; "gard" misses 2 of 6 letters.
    "a word split": (
        found(("gard", (0.0, 0.0, 24.0, 20.0)), ("en", (24.0, 0.0, 40.0, 20.0))), true(("garden", A)),
        counts(1, 2, 1, 0, 1 - 2 / 6, 6, 4),
    ),
    "case, punctuation and width do not count": (
        found(("“GARDEN,”", A), ("ｍａｒｋｅｔ", B), ("STRASSE", C)), true(("Garden", A), ("market!", B), ("Straße", C)),
        counts(3, 3, 3, 3, 3.0, 19, 19),
    ),
    "punctuation inside a word counts": (found(("dont", A)), true(("don't", A)), counts(1, 1, 1, 0, 1 - 1 / 5, 5, 4)),
    "specks of punctuation are no words": (
        found(("|", C), ("--", BOTH), ("garden", A)), true(("garden", A), ("&", B)), counts(1, 1, 1, 1, 1.0, 6, 6),
    ),
    # What lies on the unreadable word goes; what only touches it (a quarter of its area) stays and is wrong.
    "don't care": (
        found(("xyz", B), ("garden", A), ("noise", (90.0, 0.0, 130.0, 20.0))), true(("garden", A), ("###", B)),
        counts(1, 2, 1, 1, 1.0, 6, 6),
    ),
    "nothing found": ([], GARDEN_MARKET, counts(2, 0, 0, 0, 0.0, 12, 0)),
    "nothing there": (found(("garden", A)), [], counts(0, 1, 0, 0, 0.0, 0, 0)),
    "nothing at all": ([], [], counts(0, 0, 0, 0, 0.0, 0, 0)),
    "the right word at the wrong place": (found(("garden", C)), true(("garden", A)), counts(1, 1, 0, 0, 0.0, 6, 0)),
    # 7 wrong letters in a word of 3: no letter is right, and not minus 4.
    "a longer wrong word": (found(("absolutely", A)), true(("bus", A)), counts(1, 1, 1, 0, 1 - 8 / 10, 3, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_counts_by_hand(name: str) -> None:
    words, truth, expected = CASES[name]
    result = count_words(words, truth, MatchRule())
    assert result.similarity == pytest.approx(expected.similarity)
    assert {**result.__dict__, "similarity": 0} == {**expected.__dict__, "similarity": 0}
    backwards = count_words(words[::-1], truth[::-1], MatchRule())
    assert {**backwards.__dict__, "similarity": 0} == {**expected.__dict__, "similarity": 0}, "the order decides nothing"


def test_the_rule_can_be_loosened() -> None:
    merged, split = CASES["two words merged"], CASES["the closer of two is taken, right or not"]
    assert count_words(merged[0], merged[1], MatchRule(min_iou=0.4)).boxes == 1, "one box is one word"
    assert count_words(split[0], split[1], MatchRule(min_similarity=0.8)).words == 1
    with pytest.raises(ValueError, match="expected min_iou above 0 and up to 1, got 0, correct --min-iou"):
        MatchRule(min_iou=0)
    with pytest.raises(ValueError, match="correct --min-similarity"):
        MatchRule(min_similarity=1.5)


def test_boxes_and_texts() -> None:
    assert iou(A, A) == 1 and iou(A, B) == 0 and iou(A, BOTH) == pytest.approx(0.4)
    assert iou(A, (40.0, 0.0, 80.0, 20.0)) == 0 and iou((3.0, 3.0, 3.0, 3.0), (3.0, 3.0, 3.0, 3.0)) == 0
    assert [edit_distance(*pair) for pair in (("", "abc"), ("kitten", "sitting"), ("flaw", "lawn"), ("same", "same"))] == [
        3,
        3,
        2,
        0,
    ]
    assert similarity("", "") == 1 and similarity("ab", "") == 0
    assert [normalised(text) for text in (" «Été», ", "...", "$5", "rock'n'roll", "ﬁre")] == [
        "été",
        "",
        "5",
        "rock'n'roll",
        "fire",
    ]


def test_interval_of_a_ratio() -> None:
    generator = np.random.default_rng(7)
    below = generator.integers(5, 15, size=300)
    above = generator.binomial(below, 0.7)
    ratio = ratio_interval(above.tolist(), below.tolist(), seed=1)
    value, spread = above.sum() / below.sum(), (0.7 * 0.3 / below.sum()) ** 0.5
    assert ratio.value == pytest.approx(value)
    assert ratio.low is not None and ratio.high is not None
    assert ratio.low == pytest.approx(value - 1.96 * spread, abs=0.2 * 1.96 * spread), "independent words: the binomial interval"
    assert ratio.high == pytest.approx(value + 1.96 * spread, abs=0.2 * 1.96 * spread)
    assert ratio == ratio_interval(above.tolist(), below.tolist(), seed=1)
    # Pictures that are read whole or not at all: 10 words say no more than 1, so the interval is that of 300 draws.
    whole = ratio_interval([10 * (i % 2) for i in range(300)], [10] * 300, seed=1)
    assert whole.high is not None and whole.high - 0.5 == pytest.approx(1.96 * 0.5 / 300**0.5, rel=0.1)
    nothing = ratio_interval([0, 0], [0, 0], seed=1)
    assert nothing.value is None and nothing.low is None and nothing.high is None, "no word is no score of 0"
    assert ratio_interval([1, 0], [1, 0], seed=1).low == 1, "a picture without words adds nothing"


class Reader:
    """Stands in for an engine: says for every picture what its first pixel tells it to."""

    name = "reader"
    settings = {"version": "1"}
    words = {0: found(("garden", A), ("market", B)), 1: found(("garden", A), ("noise", C)), 2: []}

    def read(self, image_CHW_u8: torch.Tensor) -> list[Word]:
        return list(self.words[int(image_CHW_u8[0, 0, 0])])


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engine(name: str) -> Reader:
        if name == "absent":
            raise EngineMissing("install it")
        return Reader()

    monkeypatch.setattr(fidelity, "open_engine", open_engine)


def row(folder: Path, levels: Sequence[int], *, size_px: tuple[int, int] = (128, 64)) -> dict[str, Path]:
    """Pictures k0, k1, ... whose pixels tell the reader what to say."""
    for index, level in enumerate(levels):
        write_png(folder / f"k{index}.png", torch.full((3, size_px[1], size_px[0]), level, dtype=torch.uint8))
    return {f"k{index}": folder / f"k{index}.png" for index in range(len(levels))}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    words = [{"text": "garden", "box_px": list(A)}, {"text": "market", "box_px": [[60, 0], [100, 0], [100, 20], [60, 20]]}]
    path = tmp_path / "annotations.json"
    pictures = {f"k{index}": {"size_px": [128, 64], "words": words} for index in range(3)}
    path.write_text(json.dumps({"pictures": pictures}), encoding="utf-8")
    return path


def test_rows_are_scored_over_all_pictures(engines: None, annotations: Path, tmp_path: Path) -> None:
    rows = {"reference": row(tmp_path / "hq", [0, 0, 0]), "lq": row(tmp_path / "lq", [0, 1, 2])}
    scores = fidelity.score_text(rows, annotations, ["reader", "absent"])
    assert scores.not_computed == {"absent": "install it"} and list(scores.values) == ["reader"]
    lq = scores.values["reader"]["lq"]
    assert [(count["true"], count["found"], count["words"]) for count in lq.values()] == [(2, 2, 2), (2, 2, 1), (2, 0, 0)]
    assert scores.ratio("reader", "lq", "recall").value == 3 / 6
    assert scores.ratio("reader", "lq", "precision").value == 3 / 4
    assert scores.ratio("reader", "reference", "one_minus_ned").value == 1
    table = scores.markdown()
    assert "| reader | lq | 0.750 |" in table and "3 / 6 / 4 |" in table and "absent: not computed: install it" in table
    report = scores.as_json()
    assert report["scores"]["reader"]["lq"]["recall"]["numerator"] == 3 and report["counts"]["reader"]["lq"] == lq
    assert json.loads(json.dumps(report)) == report
    again = fidelity.score_text(rows, annotations, ["reader", "absent"])
    assert (again.markdown(), again.as_json()) == (table, report)
    assert "none" in fidelity.score_text({"lq": row(tmp_path / "no", [2])}, annotations, ["reader"]).markdown()
    nothing = fidelity.score_text(rows, annotations, ["absent"]).markdown()
    assert nothing.startswith("\nabsent: not computed: install it"), "a missing engine is no score of 0"


def test_rows_that_do_not_fit_are_refused(engines: None, annotations: Path, tmp_path: Path) -> None:
    good = row(tmp_path / "hq", [0, 0, 0])

    def told(rows: dict[str, dict[str, Path]], names: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            fidelity.score_text(rows, annotations, names)

    told({"reference": good, "x": row(tmp_path / "few", [0, 0])}, ["reader"], "got no 'k2' in row 'x'")
    small = row(tmp_path / "small", [0, 0, 0], size_px=(64, 32))
    told({"reference": good, "x": small}, ["reader"], "'k0' in row 'x' to have 128 x 64 px .* got 64 x 32")
    told({"x": {"other": good["k0"]}}, ["reader"], "expected pictures whose keys are in .*'k0'")
    told({}, ["reader"], "expected at least one row")
    told({"reference": good}, [], "expected OCR engines, each once")
    content = json.loads(annotations.read_text())
    for picture in content["pictures"].values():
        del picture["size_px"]
    annotations.write_text(json.dumps(content))
    told({"reference": good, "x": small}, ["reader"], "'k0' in row 'x'")
    told({"x": small}, ["reader"], "the words of 'k0' inside its 64 x 32 px, got 'garden'|'market'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected annotations in .*text-set"),
        ("[]", 'expected {"pictures"'),
        ('{"pictures": {}}', 'expected {"pictures"'),
        ('{"pictures": {"a": []}}', "expected a list \"words\" in picture 'a'"),
        ('{"pictures": {"a": {"words": [{"text": "x"}]}}}', "in word 1 of picture 'a' of .* got None"),
        ('{"pictures": {"a": {"words": [{"text": "x", "box_px": [5, 5, 5, 9]}]}}}', "right > left"),
        ('{"pictures": {"a": {"words": [{"text": "x", "box_px": [[1, 2], [3, 4]]}]}}}', "3 or more points"),
        ('{"pictures": {"a": {"words": [{"text": 7, "box_px": [1, 2, 3, 4]}]}}}', 'expected "text" and "box_px"'),
        ('{"pictures": {"a": {"size_px": [0, 4], "words": []}}}', 'expected "size_px"'),
    ],
)
def test_broken_annotations_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_read_text_writes_both_reports(
    engines: None, annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row(tmp_path / "hq", [0, 0, 0])
    out = tmp_path / "report.json"
    command = ["read-text", "--text", str(annotations), "--ocr", "reader", "--out", str(out), "--row"]
    assert main([*command, f"reference={tmp_path / 'hq'}"]) == 0
    shown = capsys.readouterr()
    assert "warning" not in shown.err and (tmp_path / "report.md").read_text() in shown.out
    assert json.loads(out.read_text())["scores"]["reader"]["reference"]["recall"]["value"] == 1
    assert main([*command, f"lq={tmp_path / 'hq'}"]) == 0
    assert "warning: no row is named 'reference'" in capsys.readouterr().err
    for bad in (["plain"], ["=x"], [f"a={tmp_path / 'hq'}", "--row", f"a={tmp_path / 'hq'}"], [f"a={tmp_path / 'nowhere'}"]):
        assert main([*command, *bad]) == 2
    assert main([*command, f"a={tmp_path / 'hq'}", "--out", str(tmp_path / "report.txt")]) == 2
    assert not (tmp_path / "report.txt").exists()
    Image.new("RGB", (9, 9)).save(tmp_path / "hq" / "k1.png")
    before = out.read_bytes()
    assert main([*command, f"reference={tmp_path / 'hq'}"]) == 2 and out.read_bytes() == before
