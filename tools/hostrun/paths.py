"""Where things are: the clone, the cache outside it, an existing ComfyUI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .errors import SetupError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
BUILD = ROOT / "build"
PACK_NAME = "ComfyUI-FaithDiff"
"""The name of the folder that the host knows the pack by, whatever the clone is called."""

GIB = 1024**3


def cache_dir() -> Path:
    """FAITHDIFF_CACHE, else ~/.cache/comfyui-faithdiff. Not created here."""
    named = os.environ.get("FAITHDIFF_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "comfyui-faithdiff"


def is_comfyui(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("main.py", "nodes.py", "folder_paths.py", "comfy/sd.py"))


def existing_comfyui() -> Path | None:
    """The ComfyUI that COMFYUI_PATH names, else the nearest parent folder of the clone that is one, else None.

    Raises SetupError if COMFYUI_PATH is set and is no ComfyUI."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        folder = Path(named).expanduser().absolute()
        if not is_comfyui(folder):
            raise SetupError(
                f"expected a ComfyUI checkout (main.py, nodes.py, comfy/) in COMFYUI_PATH, got {folder}; set it right or unset it"
            )
        return folder
    # The clone may be reached through a symlink in ComfyUI/custom_nodes: the unresolved path counts too.
    for start in (Path(os.path.abspath(__file__)).parents[2], ROOT):
        for parent in start.parents:
            if is_comfyui(parent):
                return parent
    return None


def require_free_space(folder: Path, needed_bytes: int, purpose: str, advice: str) -> None:
    """Raises SetupError if the disk that holds `folder` (which need not exist yet) has less than `needed_bytes` free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise SetupError(
            f"expected {_shown(needed_bytes)} free for {purpose} in {folder}, got {_shown(free_bytes)}; free some space, "
            f"or {advice}"
        )


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GB" if size_bytes >= GIB else f"{size_bytes / 1024**2:.0f} MB"
