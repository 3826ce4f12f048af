"""Names of files: those of pictures, of what is left out and what to do about it, and of what nobody has put there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..photo.read import suffixes_here

HIDDEN = frozenset({"@eadir", "@recycle", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"})
"""Folders that a NAS, Windows, macOS and Linux fill by themselves, in lower case; what begins with a dot is hidden anyway."""
_CONVERT, _DEVELOP = "convert it to PNG or TIFF", "develop it to a 16-bit TIFF"
_MORE_RAW = (".nrw", ".crw", ".3fr", ".iiq", ".rwl", ".x3f", ".kdc", ".dcr", ".mrw", ".erf")
ADVICE = {
    **dict.fromkeys((".heic", ".heif", ".hif"), f"{_CONVERT} (pillow-heif, ImageMagick and most viewers do)"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", *_MORE_RAW), _DEVELOP),
    **dict.fromkeys((".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".exr", ".hdr", ".psd", ".psb", ".xcf", ".tga", ".dds"), _CONVERT),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".ico", ".svg", ".qoi", ".avifs", ".mpo"), _CONVERT),
    **dict.fromkeys((".heics", ".dib", ".jxr", ".pcx"), _CONVERT),
    ".avif": "install a Pillow that has AVIF (pip install -U pillow)",
}
"""Suffixes of pictures that are not read, or not by every Pillow, and what to do about it."""
_PACKED = frozenset({".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"})
"""Suffixes of archives, and of what is packed."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or folder that is not taken. `kind`: what is counted, a word or two. `reason` = "": it is counted only."""

    path: str
    kind: str
    reason: str = ""


def not_read_here() -> Mapping[str, str]:
    """Suffixes of pictures that this Pillow does not read, and what to do about it."""
    taken = suffixes_here()
    return {suffix: advice for suffix, advice in ADVICE.items() if suffix not in taken}


def objection_to(path: Path, taken: Collection[str]) -> LeftOut | None:
    """Why a file is not taken, by its suffix; None for one that is (`taken`: their suffixes), or that is no picture at all."""
    suffix = path.suffix.lower()
    if suffix in _PACKED:
        kind = ".tar" + suffix if Path(path.stem).suffix.lower() == ".tar" else suffix
        return LeftOut(path=str(path), kind=kind, reason=f"{kind} files are not opened; unpack it")
    if suffix in ADVICE and suffix not in taken:
        return LeftOut(path=str(path), kind=suffix, reason=f"{suffix} is not read here; {ADVICE[suffix]}")
    return None


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none that a user has put there."""
    return name.startswith(".") or name.lower() in HIDDEN


def is_text(name: str) -> bool:
    """Whether a file's name can be written as UTF-8; systems allow any bytes."""
    return name.encode("utf-8", "replace").decode() == name
