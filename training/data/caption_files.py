"""Captions that lie in files: KEY.txt, or KEY.json with a "caption"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.common.images import Located, read_bytes
from training.common.strict_json import parse_json


@dataclass(frozen=True, kw_only=True)
class CaptionFile:
    """One caption's file, or its bytes in a shard."""

    source: Path | Located
    is_json: bool

    def read(self) -> str:
        """The caption without surrounding space; "" for a JSON object without one.

        Raises:
            ValueError: bytes that are no UTF-8, or JSON that is no object with a text as "caption".
        """
        name = self.source if isinstance(self.source, Path) else self.source.path
        try:
            text = read_bytes(self.source).decode("utf-8-sig")
            value = parse_json(text, odd_numbers=True) if self.is_json else {"caption": text}
        except (OSError, ValueError) as error:
            raise ValueError(f"expected a caption as UTF-8 text or JSON, got {name} ({error}), correct or remove it") from error
        caption = value.get("caption", "") if isinstance(value, dict) else None
        if not isinstance(caption, str):
            raise ValueError(f'expected JSON {{"caption": TEXT}}, got another value in {name}, correct or remove it')
        return caption.strip()


def beside(pictures: Iterable[tuple[str, Path]]) -> dict[str, CaptionFile]:
    """The captions that lie beside pictures, by key."""
    found = ((key, path.with_suffix(suffix)) for key, path in pictures for suffix in (".json", ".txt"))
    return {key: CaptionFile(source=path, is_json=path.suffix == ".json") for key, path in found if path.is_file()}


def in_folder(folder: Path) -> dict[str, CaptionFile]:
    """The captions below a folder; the key is the path below it, without suffix. Where both kinds are there, .txt counts.

    Raises:
        ValueError: a folder that does not exist.
    """
    if not folder.is_dir():
        raise ValueError(f"expected a folder of captions, got {folder}, which is none; check the path")
    files = [path for suffix in ("*.json", "*.txt") for path in sorted(folder.rglob(suffix)) if path.is_file()]
    return {
        path.relative_to(folder).with_suffix("").as_posix(): CaptionFile(source=path, is_json=path.suffix == ".json")
        for path in files
    }
