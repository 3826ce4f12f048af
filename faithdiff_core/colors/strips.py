"""A picture in strips of rows, where work on all of it at once would take many times its memory."""

from __future__ import annotations

from collections.abc import Iterator

STRIP_ROWS = 512
"""Lab of a whole 8K picture, with what it is made through, would take some ten times the picture. So few that a float counts
every pixel of a strip 16384 px wide."""


def strips(height_px: int) -> Iterator[slice]:
    """The rows of each."""
    for top in range(0, height_px, STRIP_ROWS):
        yield slice(top, top + STRIP_ROWS)
