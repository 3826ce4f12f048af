"""The stills that the packages `comfyui-workflow-templates-media-*` install: training pictures that every host already has."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE_PREFIX = "comfyui-workflow-templates-media-"
STILL_SUFFIXES = frozenset({".webp", ".png", ".jpg", ".jpeg"})


def bundled_stills() -> list[tuple[str, Path]]:
    """(key, path) of every opaque still in the installed packages, sorted by key. Animations and pictures with real transparency
    are left out.

    Raises:
        ValueError: no such package is installed.
    """
    found: dict[str, Path] = {}
    packages = sorted((dist for dist in metadata.distributions() if _name(dist).startswith(PACKAGE_PREFIX)), key=_name)
    if not packages:
        raise ValueError(f"expected installed packages {PACKAGE_PREFIX}*, got none, pip install comfyui-workflow-templates")
    for dist in packages:
        for file in dist.files or []:
            path = Path(str(dist.locate_file(file)))
            if path.suffix.lower() in STILL_SUFFIXES and path.is_file() and _is_opaque_still(path):
                # The version is left out of the key: a newer package must not turn every key over.
                found[f"{_name(dist)}/{path.name}"] = path
    return sorted(found.items())


def _name(dist: metadata.Distribution) -> str:
    return str(dist.metadata["Name"]).lower().replace("_", "-")


def _is_opaque_still(path: Path) -> bool:
    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                return False
            if "A" not in opened.getbands() and "transparency" not in opened.info:
                return True
            return bool(np.asarray(opened.convert("RGBA"))[..., 3].min() == 255)
    except (OSError, ValueError, SyntaxError):
        return True  # listed, so that `prepare` reports it as unreadable instead of hiding it
