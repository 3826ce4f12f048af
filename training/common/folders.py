"""Folders of pictures: which files are pictures, which are left out and why, and how a command over them ends."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from faithdiff_core.files.checks import first_line
from training.common.images import IMAGE_SUFFIXES

HIDDEN = frozenset({"@eadir", "@recycle", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"})
"""Folders that a NAS, Windows, macOS and Linux fill by themselves, in lower case; what begins with a dot is hidden anyway."""
_CONVERT, _DEVELOP = "convert it to PNG or TIFF", "develop it to a 16-bit TIFF"
MORE_RAW = (".nrw", ".crw", ".3fr", ".iiq", ".rwl", ".x3f", ".kdc", ".dcr", ".mrw", ".erf")
_ADVICE = {
    **dict.fromkeys((".heic", ".heif", ".hif"), f"{_CONVERT} (pillow-heif, ImageMagick and most viewers do)"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", *MORE_RAW), _DEVELOP),
    **dict.fromkeys((".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".exr", ".hdr", ".psd", ".psb", ".xcf", ".tga", ".dds"), _CONVERT),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".ico", ".svg", ".qoi", ".avifs", ".mpo"), _CONVERT),
    **dict.fromkeys((".heics", ".dib", ".jxr", ".pcx"), _CONVERT),
    ".avif": "install a Pillow that has AVIF (pip install -U pillow)",
}
NOT_READ: Mapping[str, str] = {suffix: advice for suffix, advice in _ADVICE.items() if suffix not in IMAGE_SUFFIXES}
"""Suffixes of pictures that are not read here, and what to do about it."""
PACKED = frozenset({".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"})
"""Suffixes of archives, and of what is packed."""
SCALE_SUFFIX = re.compile(r"(?P<key>.+)x\d{1,2}(?:[mdw]\d?)?")
"""DIV2K's names of small pictures: 0001x4 beside 0001, in its later sets 0001x4m, 0001x4d and 0001x4w1."""
_Source = TypeVar("_Source")
NAMED = 5
"""So many names are in a message."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or folder that is not taken. `kind`: what is counted, a word or two. `reason` = "": it is counted only."""

    path: str
    kind: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureListing:
    """What was found. `pictures`: (key, path), sorted. `shards`: .tar files, where they were asked for."""

    pictures: list[tuple[str, Path]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)


def list_pictures(inputs: Iterable[Path], *, shards: bool = False) -> PictureListing:
    """Every picture named or found below a folder.

    The key is the path below the folder given, without suffix and with forward slashes; a file's key is its stem. Hidden files
    and folders, links to folders, formats that are not read and names that are no UTF-8 are left out. `shards`: .tar files are
    listed, too.

    Raises:
        ValueError: an input that does not exist, or a file whose suffix says that it is not read.
    """
    found = PictureListing()
    for item in inputs:
        if item.is_dir():
            _walk(item, found, shards=shards)
        elif not item.is_file():
            raise ValueError(f"expected a picture or a folder, got {item}, which does not exist; check the path")
        elif shards and item.suffix.lower() == ".tar":
            found.shards.append(item)
        elif objection := _objection(item):
            raise ValueError(f"expected a picture, got {item}; {objection.reason}")
        elif not is_text(item.name):
            raise ValueError(f"expected a picture whose name is UTF-8, got {shown(str(item))}; rename it")
        else:
            found.pictures.append((item.stem, item))
    found.pictures.sort()
    return found


def require_pictures(listed: PictureListing, source: Path) -> None:
    """Look whether there is anything to do.

    Raises:
        ValueError: there is no picture; the message has what was left out.
    """
    if not listed.pictures:
        tally = Tally(left_out=listed.left_out)
        reasons = "".join(f"; {line}" for line in tally.lines()[:NAMED])
        raise ValueError(f"expected pictures in {source}, got none ({tally.summary()}){reasons}; check the folder")


def _walk(top: Path, found: PictureListing, *, shards: bool) -> None:
    def unread(error: OSError) -> None:
        reason = f"expected a folder that can be read, got {error.strerror}; check who may read it"
        found.left_out.append(LeftOut(path=str(error.filename), kind="closed folder", reason=reason))

    for here, folders, files in os.walk(top, onerror=unread):
        folder = Path(here)
        for name in sorted(folders):
            if is_hidden(name):
                found.left_out.append(LeftOut(path=str(folder / name), kind="hidden"))
                folders.remove(name)
            elif (folder / name).is_symlink():  # os.walk does not follow it, which could go on for ever
                reason = "links to folders are not followed; name that folder"
                found.left_out.append(LeftOut(path=str(folder / name), kind="linked folder", reason=reason))
        folders.sort()
        for name in sorted(files):
            _take(folder / name, top, found, shards=shards)


def _take(path: Path, top: Path, found: PictureListing, *, shards: bool) -> None:
    suffix = path.suffix.lower()
    is_picture = suffix in IMAGE_SUFFIXES
    if is_hidden(path.name):
        if is_picture or suffix in NOT_READ:
            found.left_out.append(LeftOut(path=str(path), kind="hidden"))
    elif shards and suffix == ".tar":
        found.shards.append(path)
    elif objection := _objection(path):
        found.left_out.append(objection)
    elif is_picture and not path.is_file():
        found.left_out.append(LeftOut(path=str(path), kind="no file", reason="a link that leads nowhere, or no file; remove it"))
    elif is_picture and not is_text(path.relative_to(top).as_posix()):
        found.left_out.append(LeftOut(path=str(path), kind="name not UTF-8", reason="its name is no UTF-8, rename it"))
    elif is_picture:
        found.pictures.append((path.relative_to(top).with_suffix("").as_posix(), path))


def _objection(path: Path) -> LeftOut | None:
    """Why a file is not taken, by its suffix; None for one that is, or that is no picture at all."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        kind = ".tar" + suffix if Path(path.stem).suffix.lower() == ".tar" else suffix
        return LeftOut(path=str(path), kind=kind, reason=f"{kind} files are not opened; unpack it")
    if suffix in NOT_READ:
        return LeftOut(path=str(path), kind=suffix, reason=f"{suffix} is not read here; {NOT_READ[suffix]}")
    return None


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none that a user has put there."""
    return name.startswith(".") or name.lower() in HIDDEN


def is_text(name: str) -> bool:
    """Whether a file's name can be written as UTF-8; systems allow any bytes."""
    return name.encode("utf-8", "replace").decode() == name


def without_scale(pictures: Mapping[str, _Source], keys: Iterable[str]) -> dict[str, _Source]:
    """The pictures by the keys of those that they belong to: 0001x4 becomes 0001 where `keys` have that one and not 0001x4.

    Raises:
        ValueError: two of one key then.
    """
    wanted, found, former = set(keys), {}, {}
    for key, source in pictures.items():
        match = None if key in wanted else SCALE_SUFFIX.fullmatch(key)
        name = match["key"] if match and match["key"] in wanted else key
        if name in found:
            raise ValueError(f"expected one picture for {name!r}, got {former[name]!r} and {key!r}; give one scale at a time")
        found[name], former[name] = source, key
    return found


@dataclass(kw_only=True)
class Tally:
    """How a command over a folder went: what it says at the end, and its exit code."""

    left_out: list[LeftOut] = field(default_factory=list)
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Key to the reason, in one line."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """(key, sentence) of pictures that were done."""

    def warn(self, key: str, warnings: Iterable[str]) -> None:
        """Keep what is to be told of a picture."""
        self.warnings += [(key, text) for text in warnings]

    @property
    def exit_code(self) -> int:
        """1 if any picture failed."""
        return int(bool(self.failed))

    def lines(self) -> list[str]:
        """Everything that is named: warnings, what was left out and can be mended, failures."""
        by_reason: dict[str, list[str]] = {}
        for item in self.left_out:
            if item.reason:
                by_reason.setdefault(item.reason, []).append(item.path)
        lines = [f"warning: {key}: {text}" for key, text in self.warnings]
        lines += [f"left out: {some(paths)}: {reason}" for reason, paths in by_reason.items()]
        return [shown(line) for line in lines + [f"failed: {key}: {reason}" for key, reason in sorted(self.failed.items())]]

    def summary(self, more: Iterable[str] = (), *, shares: str = "") -> str:
        """`3 done, 2 left out (1 hidden, 1 .heic), 1 failed`; `shares`: who did them; `more` goes behind "done"."""
        parts = [f"{self.done} done" + (f" ({shares})" if shares else ""), *more]
        if self.left_out:
            kinds = Counter(item.kind for item in self.left_out)
            parts.append(f"{len(self.left_out)} left out ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})")
        return ", ".join(parts + ([f"{len(self.failed)} failed"] if self.failed else []))


def over_pictures(listed: PictureListing, work: Callable[[str, Path], Iterable[str]]) -> Tally:
    """Call `work` with each key and path; it returns what is to be told of the picture. One that fails is kept, the others go on.

    Raises:
        OSError: a result could not be written: the next one could not, either.
    """
    tally = Tally(left_out=listed.left_out)
    for key, path in listed.pictures:
        try:
            tally.warn(key, work(key, path))
            tally.done += 1
        except (ValueError, RuntimeError) as error:  # torch's, out of memory on a GPU for one
            tally.failed[key] = first_line(error)
        except MemoryError:
            tally.failed[key] = f"expected memory for {path}, got too little, end other programs or make it smaller"
    return tally


def some(names: list[str]) -> str:
    """The first of them, and how many more."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def shown(text: str) -> str:
    """A text that every terminal takes: bytes of a name that are no UTF-8 are written out in hexadecimal."""
    return text.encode("utf-8", "backslashreplace").decode()
