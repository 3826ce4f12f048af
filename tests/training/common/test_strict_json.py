"""JSON of strangers: UTF-8 alone, numbers that are some, and nothing nested too deep."""

from __future__ import annotations

import pytest

from training.common.strict_json import MAX_LEVELS, parse_json


def test_bytes_are_utf8_with_or_without_its_mark() -> None:
    for data in ('{"a": "ß"}'.encode(), '{"a": "ß"}'.encode("utf-8-sig"), b'{"a": "\\u00df"}'):
        assert parse_json(data) == {"a": "ß"}


@pytest.mark.parametrize(
    "data", ['{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-16-le"), '{"a": 1}'.encode("utf-32"), b'"\xed\xa0\x80"', b"\xff"]
)
def test_other_encodings_and_halves_of_pairs_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no UTF-8 at byte|Expecting|control character"):
        parse_json(data)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 5000])
def test_numbers_that_are_none_count_where_numbers_do(number: str) -> None:
    text = f'{{"caption": "a dog", "score": [{number}, 1.5]}}'
    with pytest.raises(ValueError, match="is no number|is too large|digits"):
        parse_json(text)
    assert parse_json(text, odd_numbers=True) == {"caption": "a dog", "score": [None, 1.5]}


@pytest.mark.parametrize("odd_numbers", [False, True])
def test_deep_nesting_is_refused(odd_numbers: bool) -> None:
    for levels in (MAX_LEVELS + 2, 100_000):
        with pytest.raises(ValueError, match="nested deeper than"):
            parse_json("[" * levels + "]" * levels, odd_numbers=odd_numbers)
