"""What became of each picture: a hidden file in the results' folder, a line for each thing that happens.

Lines are only ever added, each in one writing, so that several servers may share a folder and a killed one leaves at most half a
line, which is passed over. The file is not needed to know what is done: a result in its place is done.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..photos.output import append_line

NAME = ".faithdiff-folder.jsonl"
BEGUN, DONE, FAILED = "begun", "done", "failed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """What happened to a picture.

    `was`: BEGUN, DONE or FAILED. `folder`: of the pictures, below the host's input folder. `again`: the node's number. `at_ns`,
    `prompt`: when, and in which of the host's prompts. Then size and time of the source's file, and its digest ("": not known);
    of a DONE one the same of the result's; of a FAILED one the reason.
    """

    key: str
    was: str
    folder: str
    again: int
    at_ns: int
    prompt: str
    source_bytes: int
    source_mtime_ns: int
    source_sha256: str = ""
    file: str = ""
    file_bytes: int = 0
    file_mtime_ns: int = 0
    why: str = ""


_FIELDS = {field.name: str if field.type == "str" else int for field in dataclasses.fields(Line)}


class Record:
    """The lines of one results' folder, as they were when it was read."""

    def __init__(self, results: Path) -> None:
        """Read them.

        Raises:
            ValueError: it cannot be read, or is a link to something else.
        """
        self._path = results / NAME
        if self._path.is_symlink():
            raise ValueError(f"expected the list of an earlier run in {self._path}, got a link; remove it")
        data = self._data()
        self._end_bytes = len(data)
        self.lines = _parsed(data)

    def add(self, line: Line) -> None:
        """Add a line to the file.

        Raises:
            ValueError: the folder cannot be made or written.
        """
        append_line(self._path, json.dumps(dataclasses.asdict(line), ensure_ascii=False))
        self.lines.append(line)

    def claim(self, line: Line) -> bool:
        """Add the line that begins a picture. False: another server was faster since this was read, and has it.

        Raises:
            ValueError: the folder cannot be made or written.
        """
        self.add(line)
        new = _parsed(self._data()[self._end_bytes :])
        return next((other for other in new if other.key == line.key and other.was == BEGUN), line) == line

    def _data(self) -> bytes:
        try:
            return self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise ValueError(f"expected to read {self._path}, got {error.strerror}; check the file's rights") from error


def _parsed(data: bytes) -> list[Line]:
    """The lines that are whole and ours."""
    lines: list[Line] = []
    for text in data.splitlines():
        try:
            value: Any = json.loads(text)
            if all(type(value[name]) is kind for name, kind in _FIELDS.items()):
                lines.append(Line(**{name: value[name] for name in _FIELDS}))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return lines
