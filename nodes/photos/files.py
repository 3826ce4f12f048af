"""Pictures in the host's input folder, others that it names in its own way (`name.png [output]`), and the pack's own.

The host has no way for a pack to bring a picture for its input folder. The pack's own is therefore one more name in the list,
and is read where it lies; nothing is copied.
"""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...faithdiff_core.photo.photo import Photo
from ...faithdiff_core.photo.read import SUFFIXES, read_photo
from ..seam.folders import DEMO_DIR

LISTED = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""Whether this Pillow reads all of them shows when one is loaded."""
OWN_PHOTOS = {"faithdiff_demo.png": DEMO_DIR / "photo_lq.png"}
"""Photos that come with the pack, by the names that they are listed under. A file of the user's by that name goes before."""


def photo_names() -> list[str]:
    """Files in the input folder, as the host's Load Image lists them, hidden ones left out; then the pack's own."""
    folder = Path(folder_paths.get_input_directory())
    names = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    listed = sorted(name for name in names if name.lower().endswith(LISTED))
    return listed + [name for name in OWN_PHOTOS if name not in listed]


def is_own(name: str) -> bool:
    """Whether the name is that of a photo that comes with the pack."""
    return name in OWN_PHOTOS and not folder_paths.exists_annotated_filepath(name)


def photo_path(name: str) -> Path:
    """Where the file is.

    Raises:
        ValueError: there is none.
    """
    if is_own(name):
        return OWN_PHOTOS[name]
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
    return read_photo(data, name if is_own(name) else path.name)
