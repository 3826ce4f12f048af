"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RULES = {"l": "---", "c": ":-:", "r": "--:"}


def markdown_table(headings: Sequence[str], lines: Iterable[Sequence[str]], *, align: str = "l") -> str:
    """A table of text cells.

    Args:
        lines: as many cells each as there are headings.
        align: l, c or r for each column; the last one is that of all columns from there on.
    """
    letters = align + align[-1] * (len(headings) - len(align))
    rule = "|" + "".join(f"{RULES[letter]}|" for letter in letters)
    return "\n".join([_line(headings), rule, *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
