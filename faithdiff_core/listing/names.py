"""Names of results: those that would be one file on some disk, or a file and a folder in one place."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath


def same_on_some_disk(name: str) -> str:
    """What names have in common that a disk may take for one: case and the way accents are written do not count."""
    return unicodedata.normalize("NFC", name).casefold()


def require_apart(pictures: Sequence[tuple[str, Path]], suffixes: Sequence[str]) -> None:
    """Look whether every picture has a result of its own.

    Args:
        pictures: (key, path); a result is named as the key is, with a suffix behind it.
        suffixes: those that results have.

    Raises:
        ValueError: two would be one file, or one would be a file where another has a folder.
    """
    keys: dict[str, Path] = {}
    for key, path in pictures:
        other = keys.setdefault(same_on_some_disk(key), path)
        if other != path:
            name = f"{key}{suffixes[0]}" if len(suffixes) == 1 else f"one result, {key}"
            raise ValueError(f"expected one picture per name, got {other} and {path}; rename one, both would be {name}")
    names = {f"{key}{suffix}" for key, _ in pictures for suffix in suffixes}
    for key, path in pictures:
        if below := next((str(parent) for parent in PurePosixPath(key).parents if str(parent) in names), None):
            raise ValueError(
                f"expected no folder of a result's name, got {path} in one and the result {below} of another; rename one"
            )
