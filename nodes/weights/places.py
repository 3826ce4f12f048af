"""Where downloads go in this ComfyUI, and which of its folders have them already."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import folder_paths

from ...faithdiff_core.hub.catalogue import FILES, HubFile
from ..seam import folders

MORE_KINDS = {"faithdiff": ("diffusion_models",)}
"""Kind of a file -> the other folders in which its loader looks for it."""


def folder_of(file: HubFile) -> Path:
    """The folder that a file is in, or goes to: the first of its kind, as the host and extra_model_paths.yaml order them."""
    there = _path_of(file)
    if there is not None:
        return there.parent
    own = [path for path in folder_paths.get_folder_paths(file.kind) if Path(path) != folders.DEMO_DIR]
    return Path(own[0])


def found(file: HubFile) -> str | None:
    """The name under which a loader of this ComfyUI finds the file; None where it does not."""
    there = _path_of(file)
    return there.name if there is not None else None


def _path_of(file: HubFile) -> Path | None:
    folders.register()
    for name in (file.half, file.name):
        for kind in (file.kind, *MORE_KINDS.get(file.kind, ())):
            path = folder_paths.get_full_path(kind, name) if name else None
            if path is not None:
                return Path(path)
    return None


def make_folder() -> None:
    """Makes models/faithdiff, so that there is a place to put files into. Where that cannot be, nothing is lost but the place."""
    folder = folder_of(FILES["faithdiff"])
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        logging.info("FaithDiff: no folder %s for weights (%s)", folder, error)
