"""FaithDiff Load Folder and FaithDiff Save Folder, called as the host calls them, on folders of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_execution.graph_utils import ExecutionBlocker
from comfyui_faithdiff.nodes.load_folder import FaithDiffLoadFolder
from comfyui_faithdiff.nodes.save_folder import FaithDiffSaveFolder
from PIL import Image

LOADING: dict[str, Any] = {
    "folder": "photos", "pattern": "*", "sub_folders": True, "save_to": "restored/%folder%", "retry_failed": False, "again": 0,
}  # fmt: skip
SAVING: dict[str, Any] = {
    "format": "as source", "bit_depth": "as source", "color_profile": "as source", "quality": 95, "metadata": True,
    "workflow": False,
}  # fmt: skip


class Folders:
    """A folder `photos` of pictures in the host's input folder, and where its results go."""

    def __init__(self, root: Path, monkeypatch: Any) -> None:
        self.input, self.output = root / "input", root / "output"
        self.photos, self.results = self.input / "photos", self.output / "restored" / "photos"
        self.photos.mkdir(parents=True)
        self.output.mkdir()
        monkeypatch.setattr(folder_paths, "input_directory", str(self.input))
        monkeypatch.setattr(folder_paths, "output_directory", str(self.output))

    def add(self, *names: str, shade: int = 90) -> None:
        """Pictures of 8 x 6 px."""
        for name in names:
            path = self.photos / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (shade, 90, 90)).save(path)

    def spoil(self, name: str) -> None:
        """A file that is no picture."""
        (self.photos / name).write_bytes(b"no picture")

    def made(self) -> set[str]:
        """Results, below their folder, without hidden files."""
        found = {path.relative_to(self.results) for path in self.results.rglob("*") if path.is_file()}
        return {path.as_posix() for path in found if not path.name.startswith(".")}


def load(**changes: Any) -> Any:
    """What FaithDiff Load Folder gives."""
    return FaithDiffLoadFolder.execute(**{**LOADING, **changes})


def is_over(output: Any) -> bool:
    """Whether nothing was left: everything behind the node stands still, and nothing is said to be wrong."""
    blocked = [isinstance(value, ExecutionBlocker) and value.message is None for value in output.args]
    assert all(blocked) or not any(blocked)
    return all(blocked)


def save(loaded: Any, **changes: Any) -> dict[str, Any]:
    """What FaithDiff Save Folder tells the page, of the picture as it was loaded."""
    return FaithDiffSaveFolder.execute(image=loaded.args[0], folder=loaded.args[2], **{**SAVING, **changes}).ui


def run_all(**changes: Any) -> list[str]:
    """Run until nothing is left; the names in their order."""
    names = []
    while not is_over(loaded := load(**changes)):
        save(loaded)
        names.append(loaded.args[4])
        assert len(names) < 50, "it goes round and round"
    return names


def text(output: Any) -> str:
    """What a node shows."""
    told = output if isinstance(output, dict) else output.ui
    return told["text"][0]
