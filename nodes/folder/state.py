"""What is done of a folder, what is left, and which picture is next. Read anew each time: files come and go between runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ...faithdiff_core.listing.names import require_apart, same_on_some_disk
from ...faithdiff_core.listing.walk import PictureListing, list_pictures
from ...faithdiff_core.photo.write import SUFFIXES
from .ending import reason_of_failure
from .places import results_folder, source_folder
from .record import BEGUN, DONE, FAILED, Line, Record

RESULTS = tuple(SUFFIXES.values())
"""Suffixes of results."""
NAMED = 3
"""So many failures are named on a node."""


@dataclass(frozen=True, kw_only=True)
class FolderJob:
    """What FaithDiff Load Folder was asked for, by the names of its inputs."""

    folder: str
    pattern: str
    sub_folders: bool
    save_to: str
    retry_failed: bool
    again: int

    @property
    def results(self) -> Path:
        """Where results go. Raises ValueError as `results_folder`."""
        return results_folder(self.save_to, self.folder)


@dataclass(frozen=True, kw_only=True)
class FolderState:
    """How far a job is. `pictures`: key -> path, in their order. `failed`: key -> reason. `waiting`: keys, the next first."""

    record: Record
    pictures: dict[str, Path]
    done: frozenset[str]
    failed: dict[str, str]
    waiting: tuple[str, ...]
    unsettled: tuple[Line, ...]
    """FAILED lines that the record lacks: of pictures whose run has failed later than where they were loaded."""
    left_out: str

    def index(self, key: str) -> int:
        """From 1."""
        return list(self.pictures).index(key) + 1

    def numbers(self) -> dict[str, int]:
        """For the page."""
        count, left = len(self.pictures), len(self.waiting)
        return {"count": count, "done": len(self.done), "failed": len(self.failed), "left": left}

    def summary(self) -> str:
        """`12 of 40 done, 2 failed, 26 left`."""
        count, done, left = len(self.pictures), len(self.done), len(self.waiting)
        if done == count:
            return f"All {count} are done" if count > 1 else "The one picture is done"
        failed = f", {len(self.failed)} failed" if self.failed else ""
        retry = "; switch on retry_failed to try them once more" if self.failed and not left else ""
        return f"{done} of {count} done{failed}, {left or 'none'} left{retry}"

    def lines(self) -> list[str]:
        """The summary, then what was left out and what failed."""
        failed = [f"failed: {self.pictures[key].name}: {why}" for key, why in self.failed.items()]
        more = [f"and {len(failed) - NAMED} more failed"] if len(failed) > NAMED else []
        return [self.summary(), *([f"left out: {self.left_out}"] if self.left_out else []), *failed[:NAMED], *more]


def read_state(job: FolderJob) -> FolderState:
    """Look at the pictures, the results and the record.

    Raises:
        ValueError: there is no such folder or no such picture, two pictures would have one result, or the results' folder has
            those of another folder.
    """
    source, results = source_folder(job.folder), job.results
    pictures, left_out = _pictures(source, job)
    record = Record(results)
    last, tries = _last_lines(record, job, results)
    there = _names_in(results, pictures)
    done, failed, waiting, unsettled = set[str](), dict[str, str](), list[str](), list[Line]()
    for key, path in pictures.items():
        made, ended = last.get((key, DONE)), last.get((key, FAILED))
        if (begun := last.get((key, BEGUN))) and (why := reason_of_failure(begun.prompt)) is not None:
            ended = replace(begun, was=FAILED, why=why)
            unsettled.append(ended)
        if _is_done(key, path, made, there, results, job.again):
            done.add(key)
        elif ended and ended.again == job.again and _is_same_source(ended, path):
            failed[key] = ended.why
        if key not in done and (key not in failed or job.retry_failed):
            waiting.append(key)
    waiting.sort(key=lambda key: tries[key])  # stable: what was tried and not finished comes last
    return FolderState(
        record=record, pictures=pictures, done=frozenset(done), failed=failed, waiting=tuple(waiting),
        unsettled=tuple(unsettled), left_out=left_out,
    )  # fmt: skip


def _pictures(source: Path, job: FolderJob) -> tuple[dict[str, Path], str]:
    listed = list_pictures([source], sub_folders=job.sub_folders)
    matching = [(key, path) for key, path in listed.pictures if _matches(path.relative_to(source).as_posix(), job.pattern)]
    left_out = _left_out(listed)
    if not matching:
        others = f"{len(listed.pictures)} others" if listed.pictures else ""
        told = ", ".join(filter(None, [others, left_out])) or "there are none"
        raise ValueError(
            f"expected pictures in {job.folder!r:.200} whose names match {job.pattern!r:.200}, got none ({told}); check folder "
            "and pattern"
        )
    require_apart([(key, path.relative_to(source)) for key, path in matching], RESULTS)
    return dict(matching), left_out


def _matches(name: str, patterns: str) -> bool:
    """Whether a path below the folder matches one of some patterns; case does not count. One without / is of names alone."""
    name = same_on_some_disk(name)
    wanted = [same_on_some_disk(each.strip()) for each in patterns.split(";") if each.strip()]
    return not wanted or any(fnmatchcase(name if "/" in each else PurePosixPath(name).name, each) for each in wanted)


def _left_out(listed: PictureListing) -> str:
    """`2 .heic (convert it ...)`."""
    kinds = Counter((item.kind, item.reason.rpartition("; ")[2]) for item in listed.left_out if item.reason)
    return ", ".join(f"{count} {kind} ({advice})" for (kind, advice), count in kinds.items())


def _last_lines(record: Record, job: FolderJob, results: Path) -> tuple[dict[tuple[str, str], Line], Counter[str]]:
    """(key, kind) -> its last line: a BEGUN one only if nothing else came after. How often each key was begun in this round."""
    last: dict[tuple[str, str], Line] = {}
    tries = Counter[str]()
    for line in record.lines:
        if line.folder != job.folder:
            raise ValueError(
                f"expected a folder with results of {job.folder!r:.200}, got {results.name!r:.200} with those of "
                f"{line.folder!r:.200}; choose another save_to"
            )
        last[line.key, line.was] = line
        if line.was == BEGUN:
            tries[line.key] += line.again == job.again
        else:
            last.pop((line.key, BEGUN), None)
    return last, tries


def _names_in(results: Path, pictures: dict[str, Path]) -> set[str]:
    """Names below the results' folder, of every folder where a result belongs."""
    found = set[str]()
    for parent in {PurePosixPath(key).parent for key in pictures}:
        try:
            found |= {(parent / path.name).as_posix() for path in (results / parent).iterdir()}
        except OSError:  # not there yet, or a file: whoever writes says so
            continue
    return found


def _is_done(key: str, path: Path, made: Line | None, there: set[str], results: Path, again: int) -> bool:
    """A result that is there is done, whoever made it, but for one of ours that is of an earlier round or another source."""
    mine = made is not None and made.file in {key + suffix for suffix in RESULTS} and made.file in there
    if made is None or not mine or not is_as_written(made, results):
        return any(key + suffix in there for suffix in RESULTS)
    return made.again >= again and _is_same_source(made, path)


def is_as_written(made: Line, results: Path) -> bool:
    """Whether the result of a DONE line is there as it was written, and so may be written over."""
    try:
        stat = (results / made.file).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (made.file_bytes, made.file_mtime_ns)


def _is_same_source(line: Line, path: Path) -> bool:
    """Whether the picture's file is the one that a line tells of: also under another time, as after copying."""
    try:
        stat = path.stat()
    except OSError:
        return False
    if stat.st_size != line.source_bytes:
        return False
    return stat.st_mtime_ns == line.source_mtime_ns or _sha256(path, stat.st_mtime_ns) == line.source_sha256


@lru_cache(maxsize=4096)  # of folders that were copied, once a server's life
def _sha256(path: Path, mtime_ns: int) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return f"unread at {mtime_ns}"
