"""What a command may write where: nothing over sources, nothing over what an earlier run has not made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from faithdiff_core.listing.names import require_apart
from training.common.files import write_bytes
from training.common.strict_json import parse_json


class ResultsFolder:
    """A folder for one result a picture. Nothing in it is written over that an earlier run has not made, and no source ever."""

    MADE = "made.jsonl"
    """A line for each result, as it is written: {"file", "sha256"}."""

    def __init__(
        self, source: Path, out: Path, pictures: Sequence[tuple[str, Path]], *, again: bool, made: Mapping[str, str] | None = None
    ) -> None:
        """`pictures`: (key, path). `made`: names below `out` of an earlier run's results, with their sha256, beside those that
        MADE lists and nobody has changed. `again`: others may be replaced, too.

        Raises:
            ValueError: results would collide with one another, with the sources, or (unless `again`) with files that no earlier
                run has made.
        """
        self.out, self._again = out, again
        self._made = {**_made(out / self.MADE), **(made or {})}
        """Name -> sha256."""
        self._sources = {_place(path) for _, path in pictures}
        self._folder = source.resolve() if pictures and source.is_dir() else None
        require_apart(pictures, [".png"])
        known = {name.rpartition(".")[0] for name in self._made}
        for key, _ in pictures:
            self._check_apart(out / f"{key}.png")
            if key not in known:  # the result of one that is may have another suffix
                self.check(f"{key}.png")

    def check(self, name: str) -> Path:
        """The path of a result, which may be written.

        Raises:
            ValueError: it may not.
        """
        path = self.out / name
        self._check_apart(path)
        if path.is_dir() or any(parent.is_file() for parent in path.parents if parent.is_relative_to(self.out)):
            raise ValueError(f"expected room for the file {path}, got a folder or a file of a folder's name; choose another OUT")
        if not self._may_replace(name) and os.path.lexists(path):
            raise ValueError(
                f"expected an empty folder or that of an earlier run, got {path}, which is not a result of one; "
                "choose another OUT, or --again to replace such files"
            )
        return path

    def _may_replace(self, name: str) -> bool:
        """Whether a file of that name is ours, and nobody has changed it since."""
        return self._again or (name in self._made and self._made[name] == _sha256(self.out / name))

    def _check_apart(self, path: Path) -> None:
        inside = self._folder is not None and path.parent.resolve().is_relative_to(self._folder)
        if inside or _place(path) in self._sources:
            raise ValueError(f"expected a folder for the results apart from the sources, got {self.out}; choose another OUT")

    def write(self, name: str, data: bytes) -> Path:
        """Write one result and its line in MADE.

        Raises:
            ValueError: as `check`.
            OSError: the system could not write it.
        """
        path = self.check(name)
        write_bytes(path, data)
        self.note(name)
        return path

    def note(self, name: str) -> None:
        """Write the line of a result that lies in its place."""
        self._made[name] = _sha256(self.out / name)
        line = json.dumps({"file": name, "sha256": self._made[name]}) + "\n"
        with (self.out / self.MADE).open("ab+") as lines:
            if lines.tell():
                lines.seek(-1, os.SEEK_END)
                line = line if lines.read() == b"\n" else "\n" + line  # behind what a killed process has left
            lines.write(line.encode())

    def forget(self) -> None:
        """Delete MADE: another record has all of it."""
        (self.out / self.MADE).unlink(missing_ok=True)


def _made(record: Path) -> dict[str, str]:
    """The names in a MADE file whose files are as they were written, with their sha256.

    Raises:
        ValueError: it is something else, which nothing may be added to.
    """
    names: dict[str, str] = {}
    own = not record.is_symlink()
    for line in record.read_bytes().splitlines() if record.is_file() else []:
        try:
            value = parse_json(line)
            names[value["file"]] = value["sha256"]
        except (ValueError, KeyError, TypeError):  # what a killed process has left, or no line of ours
            own = own and (not line.strip() or line.startswith(b'{"file"'))
    if not own:
        raise ValueError(f"expected the list of an earlier run in {record}, got something else; rename it or choose another OUT")
    return {name: digest for name, digest in names.items() if _sha256(record.parent / name) == digest}


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _place(path: Path) -> tuple[int, int] | str:
    """The same for two paths of one file: through links, in names that a disk takes for one, by hard links."""
    try:
        found = path.stat()
    except OSError:
        return str(path.resolve())
    return (found.st_dev, found.st_ino) if found.st_ino else str(path.resolve())  # 0: a disk that numbers no files


def require_own(out: Path, what: str, is_own: Callable[[Path], bool], sources: Iterable[Path | None] = ()) -> None:
    """Look whether a file of our own may be written as `out`: it is new, or of the kind that it would be replaced by.

    `is_own` says so of a file that is there; where it raises ValueError, the file is not. `sources`: what the command reads.

    Raises:
        ValueError: it is one of `sources`, or something else.
    """
    if not os.path.lexists(out):
        return
    if _place(out) in {_place(source) for source in sources if source is not None}:
        raise ValueError(f"expected another file than those that are read, got {out} for both; choose another name")
    try:
        own = out.is_file() and is_own(out)
    except (OSError, ValueError):
        own = False
    if not own:
        raise ValueError(f"expected a new file or an earlier {what}, got {out}, which is something else; choose another name")
