"""Every picture of a folder, and what was left out of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..photo.read import suffixes_here
from .kinds import ADVICE, LeftOut, is_hidden, is_text, objection_to


@dataclass(frozen=True, kw_only=True)
class PictureListing:
    """What was found. `pictures`: (key, path), sorted. `shards`: .tar files, where they were asked for."""

    pictures: list[tuple[str, Path]] = field(default_factory=list[tuple[str, Path]])
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    shards: list[Path] = field(default_factory=list[Path])


def list_pictures(inputs: Iterable[Path], *, shards: bool = False, sub_folders: bool = True) -> PictureListing:
    """Every picture named or found below a folder.

    The key is the path below the folder given, without suffix and with forward slashes; a file's key is its stem. Hidden files
    and folders, links to folders, formats that are not read and names that are no UTF-8 are left out. `shards`: .tar files are
    listed, too. `sub_folders`: without them only what lies in a folder itself.

    Raises:
        ValueError: an input that does not exist, or a file whose suffix says that it is not read.
    """
    found, taken = PictureListing(), suffixes_here()
    for item in inputs:
        if item.is_dir():
            _walk(item, found, taken, shards=shards, sub_folders=sub_folders)
        elif not item.is_file():
            raise ValueError(f"expected a picture or a folder, got {item}, which does not exist; check the path")
        elif shards and item.suffix.lower() == ".tar":
            found.shards.append(item)
        elif objection := objection_to(item, taken):
            raise ValueError(f"expected a picture, got {item}; {objection.reason}")
        elif not is_text(item.name):
            name = str(item).encode("utf-8", "backslashreplace").decode()
            raise ValueError(f"expected a picture whose name is UTF-8, got {name}; rename it")
        else:
            found.pictures.append((item.stem, item))
    found.pictures.sort()
    return found


def _walk(top: Path, found: PictureListing, taken: Collection[str], *, shards: bool, sub_folders: bool) -> None:
    def unread(error: OSError) -> None:
        reason = f"expected a folder that can be read, got {error.strerror}; check who may read it"
        found.left_out.append(LeftOut(path=str(error.filename), kind="closed folder", reason=reason))

    for here, folders, files in os.walk(top, onerror=unread):
        folder = Path(here)
        if not sub_folders:
            folders.clear()
        hidden = [name for name in sorted(folders) if is_hidden(name)]
        found.left_out.extend(LeftOut(path=str(folder / name), kind="hidden") for name in hidden)
        folders[:] = sorted(set(folders) - set(hidden))
        for name in folders:
            if (folder / name).is_symlink():  # os.walk does not follow it, which could go on for ever
                reason = "links to folders are not followed; name that folder"
                found.left_out.append(LeftOut(path=str(folder / name), kind="linked folder", reason=reason))
        for name in sorted(files):
            _take(folder / name, top, found, taken, shards=shards)


def _take(path: Path, top: Path, found: PictureListing, taken: Collection[str], *, shards: bool) -> None:
    suffix = path.suffix.lower()
    is_picture = suffix in taken
    if is_hidden(path.name):
        if is_picture or suffix in ADVICE:
            found.left_out.append(LeftOut(path=str(path), kind="hidden"))
    elif shards and suffix == ".tar":
        found.shards.append(path)
    elif objection := objection_to(path, taken):
        found.left_out.append(objection)
    elif is_picture and not path.is_file():
        found.left_out.append(LeftOut(path=str(path), kind="no file", reason="a link that leads nowhere, or no file; remove it"))
    elif is_picture and not is_text(path.relative_to(top).as_posix()):
        found.left_out.append(LeftOut(path=str(path), kind="name not UTF-8", reason="its name is no UTF-8, rename it"))
    elif is_picture:
        found.pictures.append((path.relative_to(top).with_suffix("").as_posix(), path))
