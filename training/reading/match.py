"""Found words against true words: which box belongs to which, and what was read right. The protocol: docs/text_fidelity.md."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from training.reading.annotations import UNREADABLE, Box, TrueWord
from training.reading.engines import Word

DONT_CARE_OVERLAP = 0.5
"""A found word more than half of which (by area) lies on an unreadable one is not judged, as in ICDAR 2015, Challenge 4."""
_LEFT_OUT = ("P", "S", "Z", "C")
"""Unicode categories: punctuation, symbols, separators, control characters."""


@dataclass(frozen=True, kw_only=True)
class MatchRule:
    """When a found word counts. `min_iou`: overlap of the boxes, intersection over union, above 0 up to 1. `min_similarity`: of
    the normalised texts, above 0 up to 1; 1 asks for equal texts.
    """

    min_iou: float = 0.5
    min_similarity: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("min_iou", self.min_iou), ("min_similarity", self.min_similarity)):
            if not 0 < value <= 1:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"expected {name} above 0 and up to 1, got {value}, correct {option}")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one picture adds to the scores; all but don't-care words.

    true, found: words. boxes: pairs whose boxes match. words: pairs whose texts match as well. similarity: sum over true words
    of 1 - normalised edit distance, 0 without a matching box. characters: of all true words. characters_right: those less
    the edit distance, and not less than 0 in any word.
    """

    true: int
    found: int
    boxes: int
    words: int
    similarity: float
    characters: int
    characters_right: int


def count_words(found: Sequence[Word], true: Sequence[TrueWord], rule: MatchRule) -> Counts:
    """Compare the words found in one picture with those that stand there."""
    ignored = [word.box_px for word in true if not _is_readable(word)]
    judged = [(normalised(word.text), word.box_px) for word in true if _is_readable(word)]
    candidates = [(normalised(word.text), word.box_px) for word in found if not _lies_on(word.box_px, ignored)]
    candidates = [candidate for candidate in candidates if candidate[0]]
    pairs = _match(candidates, judged, rule.min_iou)
    similarities = [similarity(judged[j][0], candidates[i][0]) for i, j in pairs]
    right = sum(max(0, len(judged[j][0]) - edit_distance(judged[j][0], candidates[i][0])) for i, j in pairs)
    return Counts(
        true=len(judged),
        found=len(candidates),
        boxes=len(pairs),
        words=sum(value >= rule.min_similarity for value in similarities),
        similarity=sum(similarities),
        characters=sum(len(text) for text, _ in judged),
        characters_right=right,
    )


def normalised(text: str) -> str:
    """Unicode NFKC, case folded, without punctuation, symbols and spaces at both ends; "" if nothing else is in it."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    start, end = 0, len(text)
    while start < end and unicodedata.category(text[start])[0] in _LEFT_OUT:
        start += 1
    while end > start and unicodedata.category(text[end - 1])[0] in _LEFT_OUT:
        end -= 1
    return text[start:end]


def edit_distance(first: str, second: str) -> int:
    """Levenshtein: the least number of characters inserted, left out or replaced that makes one text of the other."""
    above = list(range(len(second) + 1))
    for row, one in enumerate(first, 1):
        current = [row]
        for column, other in enumerate(second, 1):
            current.append(min(above[column] + 1, current[-1] + 1, above[column - 1] + (one != other)))
        above = current
    return above[-1]


def similarity(first: str, second: str) -> float:
    """1 - edit distance / length of the longer text; 1 for equal texts."""
    longer = max(len(first), len(second))
    return 1 - edit_distance(first, second) / longer if longer else 1.0


def iou(first: Box, second: Box) -> float:
    """Area of the intersection by area of the union, 0 to 1."""
    shared = _shared_area(first, second)
    union = _area(first) + _area(second) - shared
    return shared / union if union > 0 else 0.0


def _match(found: Sequence[tuple[str, Box]], true: Sequence[tuple[str, Box]], min_iou: float) -> list[tuple[int, int]]:
    """One-to-one pairs (found, true), the best overlap first. Of equal overlaps the better text goes first, so that the order
    in which an engine lists its words decides nothing.
    """
    overlaps = [
        (-value, -similarity(found_text, true_text), j, i)
        for i, (found_text, found_box) in enumerate(found)
        for j, (true_text, true_box) in enumerate(true)
        if (value := iou(found_box, true_box)) >= min_iou
    ]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, j, i in sorted(overlaps):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return list(pairs.items())


def _is_readable(word: TrueWord) -> bool:
    return word.text.strip() != UNREADABLE and normalised(word.text) != ""


def _lies_on(box: Box, ignored: Sequence[Box]) -> bool:
    return any(_shared_area(box, other) > DONT_CARE_OVERLAP * _area(box) for other in ignored)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared_area(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width * height if width > 0 and height > 0 else 0.0
