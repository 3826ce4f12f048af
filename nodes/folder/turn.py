"""One picture's turn: taken from its folder, and its result put into the results' folder."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import folder_paths

from ...faithdiff_core.photo.photo import Photo
from ...faithdiff_core.photo.read import read_photo
from ...faithdiff_core.photo.write import Written
from ..photos.bundle import FaithDiffPhoto
from ..photos.output import write_result
from .ending import reason_of
from .places import is_inside
from .record import BEGUN, DONE, FAILED, Line, Record
from .state import FolderJob, FolderState, is_as_written, read_state


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A picture that was begun. `begun`: its line in the record. `photo`: as read. `state`: before, this one still left."""

    begun: Line
    photo: Photo
    state: FolderState


@dataclass(frozen=True, kw_only=True)
class FaithDiffFolder:
    """FAITHDIFF_FOLDER: whose turn it is, on its way to FaithDiff Save Folder. `loader`: the id of the node that took it."""

    job: FolderJob
    begun: Line
    photo: FaithDiffPhoto
    loader: str


def take(job: FolderJob, prompt: str) -> Taken | FolderState:
    """The next picture that is not done, or the folder's state where none is left. One that cannot be read is noted as failed.

    Args:
        job: what to take it from.
        prompt: the host's id of what runs, "" where that is not known.

    Raises:
        ValueError: as `read_state`; or the results' folder cannot be written, which is better known before the work than after.
    """
    broken = set[str]()
    while True:
        state = read_state(job)
        for line in state.unsettled:
            _fail(state.record, line)
        key = next((key for key in state.waiting if key not in broken), None)
        if key is None:
            return state
        begun = _begun(job, key, state.pictures[key], prompt)
        if not state.record.claim(begun):
            continue
        try:
            data = _bytes(state.pictures[key])
            photo = read_photo(data, state.pictures[key].name)
        except ValueError as error:
            broken.add(key)
            _fail(state.record, replace(begun, was=FAILED, why=reason_of(str(error))))
            continue
        return Taken(begun=replace(begun, source_sha256=hashlib.sha256(data).hexdigest()), photo=photo, state=state)


def put(folder: FaithDiffFolder, written: Written) -> Path:
    """Write a picture's result, and that it is done.

    Raises:
        ValueError: something else is in its place, or it cannot be written.
    """
    results, key = folder.job.results, folder.begun.key
    path = results / (key + written.suffix)
    if not is_inside(path.parent, results):
        raise ValueError(f"expected a folder for results, got {path.parent}, a link that leads out of {results}; remove it")
    record = Record(results)
    made = next((line for line in reversed(record.lines) if line.key == key and line.was == DONE), None)
    may_replace = made is not None and made.file == key + written.suffix and is_as_written(made, results)
    write_result(path, written.data, replace=may_replace)
    stat = path.stat()
    record.add(
        replace(
            folder.begun, was=DONE, at_ns=time.time_ns(), file=key + written.suffix, file_bytes=stat.st_size,
            file_mtime_ns=stat.st_mtime_ns,
        )
    )  # fmt: skip
    return path


def _begun(job: FolderJob, key: str, path: Path, prompt: str) -> Line:
    try:
        stat = path.stat()
        size_bytes, mtime_ns = stat.st_size, stat.st_mtime_ns
    except OSError:  # whoever reads it says why
        size_bytes, mtime_ns = 0, 0
    return Line(
        key=key, was=BEGUN, folder=job.folder, again=job.again, at_ns=time.time_ns(), prompt=prompt, source_bytes=size_bytes,
        source_mtime_ns=mtime_ns,
    )  # fmt: skip


def _bytes(path: Path) -> bytes:
    if not is_inside(path, Path(folder_paths.get_input_directory())):
        raise ValueError(f"expected a picture in ComfyUI's input folder, got {path.name}, a link that leads out; copy the file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a readable picture, got {path.name} ({error.strerror}); check the file") from error


def _fail(record: Record, line: Line) -> None:
    record.add(line)
    logging.warning("FaithDiff Load Folder: %s failed and is passed over: %s", line.key, line.why)
