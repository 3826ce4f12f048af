"""The button that restores a whole folder, in both ways of drawing nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.tiers import all_long_but

pytestmark = pytest.mark.host
NAMES = ("a b.png", "sub/50% #1.jpg", "漢字.png")


@pytest.fixture(autouse=True)
def back_to_the_default(frontend: Any):
    yield
    frontend.ask("setNodes2", on=False)


@pytest.mark.parametrize("nodes2", all_long_but([False, True], True))
def test_the_button_restores_what_is_left(frontend: Any, nodes2: bool) -> None:
    name = f"trip {nodes2}"
    folder: Path = frontend.server.input_folder / name
    for picture in NAMES:
        path = folder / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (90, 120, 60)).save(path)
    (folder / "broken.png").write_bytes(b"no picture")
    frontend.ask("setNodes2", on=nodes2)
    seen = frontend.ask("restoreFolder", folder=name, nodes2=nodes2)
    frontend.photograph(f"folder_nodes2_{nodes2}".lower())
    assert seen["inputs"] == ["folder", "pattern", "sub_folders", "save_to", "retry_failed", "again"], "the bar is no input"
    assert len(seen["saved"]) == 6, "nor anything that a workflow keeps"
    assert (seen["text"], seen["value"], seen["max"], seen["isSeen"]) == ("3 of 4, 1 failed, 0 left", 3, 4, True)
    results = frontend.server.options.base / "output" / "restored" / name
    made = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    assert made - {".faithdiff-folder.jsonl"} == set(NAMES)
    (folder / "broken.png").unlink()
    assert frontend.ask("restoreNothing", nodes2=nodes2)["text"] == "All 3 are done"
