"""annotations.json: which words stand where in the pictures of a text set.

    {"pictures": {KEY: {"size_px": [width, height], "words": [{"text": "garden", "box_px": [left, top, right, bottom]}]}}}

KEY is the picture's path below its folder, without suffix (`folders.list_pictures`). `box_px` may also be a polygon,
[[x, y], [x, y], [x, y], ...], whose bounding box counts. `size_px` may be left out. Fields with other names are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.files import write_json
from training.common.strict_json import parse_json

NAME = "annotations.json"
UNREADABLE = "###"
"""The text of a word that nobody can read, in the ICDAR robust-reading challenges: what is found there is not judged."""

MAX_COORDINATE_PX = 2**24
"""Of a coordinate: beyond that float32 does not tell neighbouring pixels apart, and no picture reaches."""

Box = tuple[float, float, float, float]
"""left, top, right, bottom in px; x to the right and y down from the picture's upper left corner."""


@dataclass(frozen=True, kw_only=True)
class TrueWord:
    """One word that stands in a picture."""

    text: str
    box_px: Box


@dataclass(frozen=True, kw_only=True)
class AnnotatedPicture:
    """What stands in one picture. `size_px` (width, height) is None where the file does not say it."""

    words: tuple[TrueWord, ...]
    size_px: tuple[int, int] | None


def read_annotations(path: Path) -> dict[str, AnnotatedPicture]:
    """The pictures of the file by key.

    Raises:
        ValueError: a missing or broken file; a word without text or box.
    """
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected annotations in {path}, got {error}, make them with text-set or see docs/text_fidelity.md"
        ) from error
    pictures = content.get("pictures") if isinstance(content, dict) else None
    if not isinstance(pictures, dict) or not pictures:
        raise ValueError(f'expected {{"pictures": {{KEY: {{"words": [...]}}}}}} in {path}, got none, see docs/text_fidelity.md')
    return {key: _picture(value, f"{key!r:.60} of {path}") for key, value in pictures.items()}


def write_annotations(path: Path, pictures: Mapping[str, AnnotatedPicture]) -> None:
    """Write the file, atomically."""
    write_json(path, {"pictures": {key: _as_json(picture) for key, picture in pictures.items()}})


def _as_json(picture: AnnotatedPicture) -> dict[str, Any]:
    words = [{"text": word.text, "box_px": list(word.box_px)} for word in picture.words]
    return {"words": words} if picture.size_px is None else {"size_px": list(picture.size_px), "words": words}


def _picture(value: Any, name: str) -> AnnotatedPicture:
    words = value.get("words") if isinstance(value, dict) else None
    if not isinstance(words, list):
        raise ValueError(f'expected a list "words" in picture {name}, got {value!r:.80}, correct the file')
    size = value.get("size_px")
    if size is not None and not (_is_numbers(size) and len(size) == 2 and min(size) >= 1):
        raise ValueError(f'expected "size_px" [width, height] in picture {name}, got {size!r:.80}, correct the file')
    return AnnotatedPicture(
        words=tuple(_word(word, f"word {number} of picture {name}") for number, word in enumerate(words, 1)),
        size_px=None if size is None else (int(size[0]), int(size[1])),
    )


def _word(value: Any, name: str) -> TrueWord:
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise ValueError(f'expected "text" and "box_px" in {name}, got {value!r:.80}, correct the file')
    return TrueWord(text=text, box_px=_bounding_box(value.get("box_px"), name))


def _bounding_box(value: Any, name: str) -> Box:
    left, top, right, bottom = 0.0, 0.0, 0.0, 0.0
    if _is_numbers(value) and len(value) == 4:
        left, top, right, bottom = value
    elif isinstance(value, list) and len(value) >= 3 and all(_is_numbers(point) and len(point) == 2 for point in value):
        xs, ys = [point[0] for point in value], [point[1] for point in value]
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if not (right > left and bottom > top):
        raise ValueError(
            f'expected "box_px" [left, top, right, bottom] with right > left and bottom > top, or 3 or more points [x, y], '
            f"in {name}, got {value!r:.80}, correct the file"
        )
    return left, top, right, bottom


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and abs(item) <= MAX_COORDINATE_PX for item in value
    )
