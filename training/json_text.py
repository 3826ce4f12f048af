"""JSON from other people's files and servers: only what JSON is, and no deeper than what reads it afterwards can go."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MOST_LEVELS = 100
"""Of lists and objects in one another. Python copies and writes nested values by recursion, about 300 levels deep."""


def parse_json(text: str | bytes) -> Any:
    """The value that a text means.

    Raises ValueError, with a reason in one line, for text that is no JSON or no UTF-8, for NaN and Infinity, for numbers beyond
    what a float or 4300 digits hold, and for deeper nesting than MOST_LEVELS."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_LEVELS} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(str(error).splitlines()[0][:160]) from None
    level, depth = [value], 0
    while level:
        if depth > MOST_LEVELS:
            raise ValueError(f"nested deeper than {MOST_LEVELS} levels")
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level, depth = [item for items in nested for item in items], depth + 1
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is too large")
    return number
