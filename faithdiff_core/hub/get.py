"""From a choice of files to files that can be loaded: what it takes is said before, then each is fetched, checked, halved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .catalogue import HubFile
from .download import download, part_of
from .half import write_half
from .progress import Told, in_units
from .record import Record, ask

SPARE_BYTES = 256 * 2**20
"""Left free on the disk: a full one stops other programs, ComfyUI's own database and logs among them."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One file, where it goes, and what the hub says of it.

    Attributes:
        file: from the catalogue.
        folder: where it goes.
        record: what the hub says.
        fetched_bytes: what is still to come.
        halved_bytes: size of the fp16 file that is made of it; 0 = none is.
    """

    file: HubFile
    folder: Path
    record: Record
    fetched_bytes: int
    halved_bytes: int

    @property
    def needs_bytes(self) -> int:
        """On the disk, while it is worked on."""
        return self.fetched_bytes + self.halved_bytes


def plan(files: Iterable[tuple[HubFile, Path]]) -> list[Step]:
    """What is to be done, for (file, its folder). Files whose last form is there are left out. Asks the hub, writes nothing.

    Raises:
        ValueError: the hub has no answer; in words.
    """
    steps: list[Step] = []
    for file, folder in files:
        if (folder / file.loaded).is_file():
            continue
        record = ask(file)
        have = folder / file.name if (folder / file.name).is_file() else part_of(file, record, folder)
        missing = max(0, record.size_bytes - (have.stat().st_size if have.is_file() else 0))
        halved = record.size_bytes // 2 if file.half else 0
        steps.append(Step(file=file, folder=folder, record=record, fetched_bytes=missing, halved_bytes=halved))
    return steps


def require_room(steps: Iterable[Step], *, keep: bool) -> None:
    """Looks at the disks' room before anything is fetched; `keep` as in `get`.

    Raises:
        ValueError: there is too little; in words.
    """
    held: dict[int, int] = {}
    most: dict[int, tuple[int, Path]] = {}
    for step in steps:
        disk = os.stat(existing(step.folder)).st_dev
        peak = held.get(disk, 0) + step.needs_bytes
        most[disk] = max(most.get(disk, (0, step.folder)), (peak, step.folder))
        held[disk] = peak if keep or not step.file.half else peak - step.record.size_bytes
    for needed, folder in most.values():
        free = free_bytes(folder)
        if needed + SPARE_BYTES > free:
            raise ValueError(
                f"expected {in_units(needed + SPARE_BYTES)} of room for {folder}, got {in_units(free)}; make room "
                "there, or give ComfyUI a models folder on a larger disk (extra_model_paths.yaml)"
            )


def get(steps: Iterable[Step], told: Told, *, keep: bool) -> list[Path]:
    """Does it. The files that can then be loaded.

    Args:
        steps: from `plan`.
        told: hears of the progress, and may end it.
        keep: keep a .bin beside the fp16 file that was made of it.

    Raises:
        As `download` and `write_half`. What was finished stays, and another call goes on.
    """
    made: list[Path] = []
    for step in steps:
        path = download(step.file, step.record, step.folder, told)
        if step.file.half:
            source, path = path, step.folder / step.file.half
            write_half(source, path, told)
            if not keep:  # it is the hub's, by its hash, so nothing is lost that could not be had again
                source.unlink()
        made.append(path)
    return made


def free_bytes(folder: Path) -> int:
    """On the disk that holds the folder, or will hold it."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())
