"""Pictures in the host's input folder, and others that it names in its own way (`name.png [output]`)."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...faithdiff_core.photo.photo import Photo
from ...faithdiff_core.photo.read import read_photo

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif")
"""What is listed. Whether this Pillow reads all of them shows when one is loaded."""


def photo_names() -> list[str]:
    """Files in the input folder, as the host's Load Image lists them; hidden ones are left out."""
    folder = Path(folder_paths.get_input_directory())
    names = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def photo_path(name: str) -> Path:
    """Where the file is.

    Raises:
        ValueError: there is none.
    """
    if not folder_paths.exists_annotated_filepath(name):
        raise ValueError(f"expected a picture in ComfyUI's input folder, got {name!r:.200}, which is not there; upload it again")
    return Path(folder_paths.get_annotated_filepath(name))


def fingerprint(name: str) -> tuple[str, int, int]:
    """Changes when the file does. A missing one is the node's to report."""
    try:
        stat = photo_path(name).stat()
    except (ValueError, OSError):
        return (name, 0, 0)
    return (name, stat.st_mtime_ns, stat.st_size)


def load(name: str) -> Photo:
    """Read a picture.

    Raises:
        ValueError: there is none, or it is damaged, too large or of a kind that is not read.
    """
    path = photo_path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a readable picture, got {path.name} ({error.strerror}); check the file") from error
    return read_photo(data, path.name)
