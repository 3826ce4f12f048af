"""Pictures inside .tar shards of the WebDataset layout: members that share a name up to their kind belong together.

KEY.png (or another picture suffix) is the picture, KEY.lq.png its LQ picture, KEY.txt or KEY.json its caption. KEY may have
dots (WebDataset ends it at the first; names of cameras and users go on). Only the table of contents is read here; pictures are
read later, one at a time, by their offset. Nothing is ever extracted, so a member's name never becomes a path.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from faithdiff_core.files.bounded_file import BoundedFile
from faithdiff_core.listing.kinds import is_hidden, is_text
from training.common.folders import NOT_READ
from training.common.images import IMAGE_SUFFIXES
from training.data.caption_files import CaptionFile


@dataclass(frozen=True, kw_only=True)
class Segment:
    """`size_bytes` from `offset` on in the file `path`; size_bytes 0 = the whole file."""

    path: str
    offset: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a shard holds, by key; `refused` names the members (or the rest of a damaged shard) left out, with the reason."""

    pictures: list[tuple[str, Segment]] = field(default_factory=list)
    lq: dict[str, Segment] = field(default_factory=dict)
    captions: dict[str, CaptionFile] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Members that macOS and others have added."""


def read_contents(shard: Path) -> Contents:
    """The table of contents of an uncompressed .tar. A damaged one gives what came before the damage."""
    contents = Contents()
    path = str(shard.resolve())
    try:
        with BoundedFile(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                _add(contents, member, path)
    except (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, LookupError, MemoryError) as error:
        # The last four: numbers and names of a damaged header, a name that says it is longer than the memory.
        contents.refused.append((shard.name, f"expected a whole uncompressed .tar, got {type(error).__name__} {error!s:.120}"))
    return contents


def _add(contents: Contents, member: tarfile.TarInfo, path: str) -> None:
    if member.isdir():
        return
    if any(is_hidden(part) for part in member.name.split("/") if part not in (".", "..")):
        contents.hidden.append(member.name)
        return
    if reason := _objection(member):
        contents.refused.append((member.name, reason))
        return
    name = PurePosixPath(member.name.removeprefix("./"))
    if not name.name:  # a file that calls itself "."
        return
    key, kind = name.with_suffix("").as_posix(), name.suffix.lower()
    segment = Segment(path=path, offset=member.offset_data, size_bytes=member.size)
    if kind in IMAGE_SUFFIXES and key.lower().endswith(".lq"):
        _once(contents.lq, key[: -len(".lq")], segment, contents)
    elif kind in IMAGE_SUFFIXES:
        contents.pictures.append((key, segment))
    elif kind in NOT_READ:
        contents.refused.append((member.name, f"{kind} is not read here; {NOT_READ[kind]}"))
    elif kind in (".txt", ".json"):
        _once(contents.captions, key, CaptionFile(source=segment, is_json=kind == ".json"), contents)


def _once(table: dict, key: str, value: object, contents: Contents) -> None:
    if key in table:
        contents.refused.append((key, "a second LQ picture or caption of this key in the shard"))
    table.setdefault(key, value)


def key_objection(key: str) -> str:
    """Why a name must not be a key, by which files are named on any system (a manifest travels); empty if it may."""
    if not is_text(key):
        return "its name is no UTF-8"
    path = PurePath(key)
    if path.is_absolute() or path.drive or ".." in key.split("/") or "\\" in key or "\0" in key:
        return "its name is absolute, leads out of its folder, or has a backslash"
    return ""


def _objection(member: tarfile.TarInfo) -> str:
    """Why a member must not be used; empty if it may."""
    if reason := key_objection(member.name):
        return reason
    if not member.isreg() or member.issparse():
        return "it is a link, a device or a sparse file"
    return "" if member.size else "it is empty"
