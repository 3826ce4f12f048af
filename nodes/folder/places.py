"""Folders inside the host's input and output folders, by names that people type or choose."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ...faithdiff_core.listing.kinds import is_hidden, is_text

WHOLE = "."
"""The input folder itself."""
FOLDER = "%folder%"
"""In the name of a folder for results: the input folder's name."""
MAX_LISTED = 500
"""Folders in the list on the node. A longer list helps nobody, and every page that opens has it made."""


def folder_names() -> list[str]:
    """The input folder itself, then the folders in it, sorted, hidden ones left out."""
    root = Path(folder_paths.get_input_directory())
    names: list[str] = []
    for here, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        names += [(Path(here) / name).relative_to(root).as_posix() for name in folders if not (Path(here) / name).is_symlink()]
        if len(names) >= MAX_LISTED:
            break
    return [WHOLE, *sorted(names[:MAX_LISTED])]


def plain_name(name: str) -> str:
    """A folder's name in one spelling: with forward slashes, none at its end, and WHOLE for nothing."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def source_folder(name: str) -> Path:
    """A folder inside the host's input folder.

    Raises:
        ValueError: the name leads out of it, or nowhere.
    """
    folder = _inside(folder_paths.get_input_directory(), name)
    if folder is None:
        raise ValueError(
            f"expected a folder inside ComfyUI's input folder, got {name!r:.200}; leave out .., absolute paths and links that "
            "lead out of it"
        )
    if not folder.is_dir():
        raise ValueError(
            f"expected a folder in ComfyUI's input folder, got {name!r:.200}, which is not there; copy it there or choose another"
        )
    return folder


def results_folder(pattern: str, source: str) -> Path:
    """A folder inside the host's output folder, which need not be there yet.

    Args:
        pattern: its name; %folder% is `source`, nothing for the whole input folder.
        source: the name of the folder with the pictures.

    Raises:
        ValueError: the name leads out of it, or into the pictures' folder, where results would be taken for pictures.
    """
    name = pattern.replace(FOLDER, "" if source == WHOLE else source)
    folder = _inside(folder_paths.get_output_directory(), name)
    if folder is None:
        raise ValueError(
            f"expected a folder inside ComfyUI's output folder, got {name!r:.200}; leave out .., absolute paths and links that "
            "lead out of it"
        )
    if folder.resolve().is_relative_to(source_folder(source).resolve()):
        raise ValueError(f"expected a folder for the results apart from the pictures, got {name!r:.200}; choose another")
    return folder


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file or folder lies there, links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead to one another
        return False


def _inside(root: str, name: str) -> Path | None:
    """The folder of that name below `root`; None where it would lie outside."""
    name = name.replace("\\", "/")
    windows = PureWindowsPath(name)
    if ".." in PurePosixPath(name).parts or windows.drive or windows.root or min(name, default=" ") < " " or not is_text(name):
        return None
    folder = Path(root) / name
    return folder if is_inside(folder, Path(root)) else None
