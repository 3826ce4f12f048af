"""Names of results: what a source and a user may call a file, on every system, and never over one that is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import folder_paths
import pytest
from comfyui_faithdiff.nodes.photos import output


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "name", "below", "stem"),
    [
        ("%name%", "IMG_1234", "", "IMG_1234"),
        ("restored/%name%-%width%", "a.b", "restored", "a.b-96"),
        ("%name%", "100%width%_%year%", "", "100_width___year_"),
        ("%name%", "50%", "", "50%"),
        ("%name%", "../up/a", "", "_up_a"),
        ("", "photo", "", "photo"),
        ("%name%", "...", "", "photo"),
        ("a:b*?", "x", "", "a_b__"),
        ("a\nb\0c", "x", "", "a_b_c"),
        ("sub\\%name%", "x", "sub", "x"),
        ("%name%", "con", "", "_con"),
        ("NUL.txt", "x", "", "_NUL.txt"),
        ("%name%", "\u6f22" * 200, "", "\u6f22" * 66),
    ],
)  # fmt: skip
def test_a_name_that_every_system_takes(out: Path, pattern: str, name: str, below: str, stem: str) -> None:
    assert output.place_for(pattern, name, 96, 64) == (out / below, stem)


@pytest.mark.parametrize("pattern", ["../x", "a/../../x"])
def test_no_name_leaves_the_output_folder(pattern: str) -> None:
    with pytest.raises(ValueError, match="expected a name inside ComfyUI's output folder"):
        output.place_for(pattern, "x", 1, 1)


def test_many_at_once_take_names_of_their_own(out: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda number: output.write_new(out, "a", ".png", bytes([number])), range(24)))
    assert len(set(paths)) == 24 and {path.read_bytes()[0] for path in paths} == set(range(24))
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)


def test_a_place_that_takes_nothing_is_one_line(out: Path) -> None:
    (out / "file").write_text("in the way")
    with pytest.raises(ValueError, match="expected to write a.png into .*, got .*; make room or check the folder's rights"):
        output.write_new(out / "file", "a", ".png", b"x")
