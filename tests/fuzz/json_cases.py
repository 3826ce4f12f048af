"""JSON as strangers write it: valid objects with pieces exchanged, numbers beyond all bounds, nesting, and broken bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

LITERALS = (
    *("null", "true", "NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "1", "0.5", "7", '""', "[]", "{}", "[[]]", "[1, 2]"),
    *("9" * 30, "9" * 5000, "-" + "9" * 400, "1" + "0" * 12, "2147483648", "9223372036854775808", "1e308"),
    *('"x"', '"../../up"', '"/etc/passwd"', '"C:\\\\evil"', '"\\ud800"', '"\\u0000"', '"line\\nline"', '"' + "y" * 5000 + '"'),
    *('{"x": 1}', "[null]", '[["a", 0]]', "[NaN, 5]", "[5, NaN]", "[1e999, 1, 2, 3]", '{"": {}}', '["a"]', '[{"x": {}}]'),
)
DEPTHS = (60, 200, 330, 900, 3000, 100_000)
_MARK = "@%d@"


@st.composite
def mutated(draw: DrawFn, examples: Sequence[Any], *, lines: bool = False) -> bytes:
    """A valid value of `examples` with up to three places changed, as text, and sometimes with broken bytes. `lines`: each item
    of an example is a line."""
    value = copy.deepcopy(draw(st.sampled_from(examples)))
    put: list[str] = []
    for _ in range(draw(st.integers(0, 3))):
        value = _changed(draw, value, put)
    text = "\n".join(map(json.dumps, value)) + "\n" if lines and isinstance(value, list) else json.dumps(value)
    for number, literal in enumerate(put):
        text = text.replace(json.dumps(_MARK % number), literal)
    data = text.encode("utf-8", "surrogatepass")
    return draw(broken(data)) if draw(st.integers(0, 9)) == 0 else data


def broken(data: bytes) -> SearchStrategy[bytes]:
    """`data` with a piece cut out, cut off, doubled or replaced."""
    place = st.integers(0, len(data))
    piece = st.one_of(st.binary(max_size=6), st.sampled_from((b"", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\n", b"{", b"]", b'"')))
    return st.builds(lambda a, b, new: data[: min(a, b)] + new + data[max(a, b) :], place, place, piece)


def _literal(draw: DrawFn) -> str:
    if draw(st.integers(0, 12)) == 0:
        depth, (before, after) = draw(st.sampled_from(DEPTHS)), draw(st.sampled_from((("[", "]"), ('{"a":', "}"))))
        return before * depth + ("1" if before != "[" else "") + after * depth
    return draw(st.sampled_from(LITERALS))


def _changed(draw: DrawFn, value: Any, put: list[str]) -> Any:
    """One place somewhere in `value` replaced, removed, renamed or doubled."""
    parent, place = None, None
    here = value
    while isinstance(here, dict | list) and here and (parent is None or draw(st.integers(0, 3))):
        parent = here
        place = draw(st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here)))))
        here = here[place]
    put.append(_literal(draw))
    mark = _MARK % (len(put) - 1)
    if parent is None:
        return mark
    how = draw(st.integers(0, 5))
    if how == 0:
        del parent[place]
    elif how == 1 and isinstance(parent, dict):
        parent[draw(st.sampled_from(("", "x", "../x", str(place) + "2", "__class__", "\n", "a" * 3000)))] = parent.pop(place)
    elif how == 1:
        parent.append(here)
    else:
        parent[place] = mark
    return value
