"""JSON from other people's files and servers: only what JSON is, and no deeper than what reads it afterwards can go."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_LEVELS = 100
"""Of lists and objects in one another. Python copies and writes nested values by recursion, about 300 levels deep."""


def parse_json(text: str | bytes, *, odd_numbers: bool = False) -> Any:
    """The value that a text means; bytes may begin with UTF-8's byte order mark.

    Args:
        odd_numbers: None stands for NaN, Infinity and numbers beyond what a float or 4300 digits hold, where a text that somebody
            else has written may hold them beside what is asked for (Python's own writer makes NaN).

    Raises:
        ValueError: no JSON or no UTF-8, odd numbers that are not let in, or deeper nesting than MAX_LEVELS; the reason is one
            line.
    """
    whole, fraction, constant = (_int_or_none, _float_or_none, _none) if odd_numbers else (int, _finite, _refuse)
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        value = json.loads(decoded, parse_int=whole, parse_float=fraction, parse_constant=constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_LEVELS} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except ValueError as error:
        from faithdiff_core.files.checks import first_line  # with it comes torch, which --help must not wait for

        raise ValueError(first_line(error)) from None
    level, depth = [value], 0
    while level:
        if depth > MAX_LEVELS:
            raise ValueError(f"nested deeper than {MAX_LEVELS} levels")
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level, depth = [item for items in nested for item in items], depth + 1
    return value


def _int_or_none(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # more than 4300 digits
        return None


def _float_or_none(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _none(_: str) -> None:
    return None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number
