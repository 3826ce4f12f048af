"""A folder, one picture a run: which is next, what is done, what failed, where results go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from comfyui_faithdiff.nodes.folder.places import folder_names
from comfyui_faithdiff.nodes.folder.record import NAME, Record
from comfyui_faithdiff.nodes.folder.served import answer_to
from comfyui_faithdiff.nodes.load_folder import FaithDiffLoadFolder
from PIL import Image
from support.folder_nodes import Folders, is_over, load, run_all, save, text

pytestmark = pytest.mark.host


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    return Folders(tmp_path, monkeypatch)


def test_every_picture_has_its_turn_and_its_name(folders: Folders) -> None:
    names = ["a b.png", "ä#1%.jpg", "sub/50%.tif", "sub/deep/漢字 😀.webp", "x.y.png"]
    folders.add(*names, ".hidden.png", "@eaDir/c.png")
    (folders.photos / "notes.txt").write_text("no picture")
    (folders.photos / "raw.cr3").write_bytes(b"raw")
    first = load()
    assert first.args[4:] == ("a b", 1, 5) and first.args[0].shape == (1, 6, 8, 3) and first.args[1].shape == (1, 64, 64)
    assert "1 of 5: a b" in text(first) and "0 of 5 done, 5 left" in text(first)
    assert "1 .cr3 (develop it to a 16-bit TIFF)" in text(first)
    told = save(first)
    assert "restored/photos/a b.png" in text(told).replace(os.sep, "/") and "1 of 5 done, 4 left" in text(told)
    assert told["faithdiff_folder"] == [{"count": 5, "done": 1, "failed": 0, "left": 4, "loader": ""}]
    assert run_all() == ["sub/50%", "sub/deep/漢字 😀", "x.y", "ä#1%"]
    assert folders.made() == set(names)
    over = load()
    assert is_over(over) and "All 5 are done" in text(over) and not folders.photos.joinpath(NAME).exists()


def test_a_pattern_and_no_sub_folders_choose(folders: Folders) -> None:
    folders.add("a.JPG", "b.png", "sub/c.jpg", "sub/d.png")
    cases = (
        ("*.jpg", True, ["a", "sub/c"]),
        ("*", False, ["a", "b"]),
        ("SUB/*", True, ["sub/c", "sub/d"]),
        ("b*; d*", True, ["b", "sub/d"]),
        ("", True, ["a", "b", "sub/c", "sub/d"]),
    )
    for number, (pattern, sub_folders, wanted) in enumerate(cases):
        assert run_all(pattern=pattern, sub_folders=sub_folders, save_to=f"out {number}") == wanted


def test_the_list_has_the_folders(folders: Folders) -> None:
    folders.add("sub/a.png", ".git/b.png")
    (folders.input / "elsewhere").symlink_to(folders.output)
    assert folder_names() == [".", "photos", "photos/sub"]


@pytest.mark.parametrize(
    "name", ["../output", "/etc", "photos/../../output", "C:\\photos", "\\\\server\\share", "out", "a\nb", "loop"]
)
def test_no_folder_outside_is_read_or_written(folders: Folders, name: str) -> None:
    folders.add("a.png")
    for root in (folders.input, folders.output):
        (root / "out").symlink_to(folders.output.parent)
        (root / "loop").symlink_to(root / "loop")
    for kind, changes in (("input", {"folder": name}), ("output", {"save_to": name})):
        asked = {"folder": "photos", "save_to": "x", **changes}
        told = FaithDiffLoadFolder.validate_inputs(**asked)
        assert str(told).startswith(f"expected a folder inside ComfyUI's {kind} folder, got "), told
        with pytest.raises(ValueError, match=f"expected a folder inside ComfyUI's {kind} folder, got "):
            load(**changes)
        assert answer_to(asked) == ({"error": told}, 400)


def test_a_picture_that_is_a_link_out_of_the_folder_is_not_read(folders: Folders) -> None:
    folders.add("a.png")
    Image.new("RGB", (8, 6)).save(folders.output / "secret.png")
    (folders.photos / "link.png").symlink_to(folders.output / "secret.png")
    assert run_all() == ["a"]
    assert "link.png: expected a picture in ComfyUI's input folder" in text(load())


def test_what_is_wrong_with_a_folder_is_one_message(folders: Folders) -> None:
    with pytest.raises(ValueError, match=r"expected pictures in 'photos' whose names match '\*', got none \(there are none\)"):
        load()
    folders.add("a.png", "sub/b.png")
    with pytest.raises(ValueError, match=r"whose names match '\*.gif', got none \(2 others\); check folder and pattern"):
        load(pattern="*.gif")
    folders.add("A.jpg")
    with pytest.raises(ValueError, match="expected one picture per name, got A.jpg and a.png; rename one"):
        load()
    assert run_all(pattern="*.png") == ["a", "sub/b"]
    with pytest.raises(ValueError, match="expected a folder in ComfyUI's input folder, got 'gone', which is not there"):
        load(folder="gone")
    with pytest.raises(ValueError, match=r"got 'photos' with those of 'photos'|with those of 'photos'; choose another save_to"):
        load(folder="photos/sub", save_to="restored/photos")
    (folders.output / "file").write_text("in the way")
    with pytest.raises(ValueError, match="expected to write into .*; make room or check the folder's rights"):
        load(save_to="file/below", pattern="*.png")


def test_results_among_the_pictures_are_refused(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    folders.add("a.png")
    monkeypatch.setattr(folder_paths, "output_directory", str(folders.photos))
    with pytest.raises(ValueError, match="expected a folder for the results apart from the pictures"):
        load()


def test_a_broken_picture_is_named_and_the_rest_goes_on(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    folders.add("b.png", "c.png")
    folders.spoil("a.png")
    assert run_all() == ["b", "c"]
    assert caplog.text.count("a failed and is passed over: expected a readable picture, got a.png") == 1
    over = text(load())
    assert over.startswith("2 of 3 done, 1 failed, none left; switch on retry_failed") and "failed: a.png: expected" in over
    assert is_over(load(retry_failed=True)), "still broken: tried once, and no more in this run"
    assert answer_to({"folder": "photos", "save_to": "restored/%folder%", "retry_failed": "true"})[0]["left"] == 1
    folders.add("a.png")  # mended: another file, so no failure of its own
    assert run_all() == ["a"]
    assert "All 3 are done" in text(load())


def test_what_is_done_stays_until_it_is_asked_for_again(folders: Folders) -> None:
    folders.add("a.png", "b.png", "c.png", "d.png")
    folders.results.mkdir(parents=True)
    (folders.results / "d.tif").write_bytes(b"of the user")
    assert run_all() == ["a", "b", "c"]
    (folders.results / "b.png").write_bytes(b"retouched")
    folders.add("c.png", shade=10)  # another source
    os.utime(folders.photos / "a.png", (1, 1))  # the same one, copied anew
    assert run_all() == ["c"]
    assert run_all(again=1) == ["a", "c"] and run_all(again=1) == [] == run_all()
    assert (folders.results / "b.png").read_bytes() == b"retouched"
    assert (folders.results / "d.tif").read_bytes() == b"of the user"
    assert Image.open(folders.results / "c.png").getpixel((0, 0)) == (10, 90, 90)
    (folders.results / NAME).unlink()
    assert is_over(load()), "without the list, results in their places are done"
    (folders.results / "a.png").unlink()
    assert run_all() == ["a"]


def test_what_came_in_the_way_since_is_not_written_over(folders: Folders) -> None:
    folders.add("a.png")
    loaded = load()
    (folders.results / "a.png").write_bytes(b"of the user")
    with pytest.raises(ValueError, match="expected room for a.png in .*; move it away"):
        save(loaded)
    assert (folders.results / "a.png").read_bytes() == b"of the user"
    assert [path.name for path in folders.results.iterdir() if path.suffix == ".part"] == []


def test_a_link_in_the_results_leads_nowhere(folders: Folders) -> None:
    folders.add("sub/a.png")
    folders.results.mkdir(parents=True)
    (folders.results / "sub").symlink_to(folders.input)
    with pytest.raises(ValueError, match="a link that leads out of"):
        save(load())
    assert not (folders.input / "a.png").exists()


def test_one_that_was_begun_and_not_finished_comes_last(folders: Folders) -> None:
    folders.add("a.png", "b.png", "c.png")
    assert [load().args[4] for _ in range(4)] == ["a", "b", "c", "a"]
    assert run_all() == ["b", "c", "a"]


def test_half_a_line_and_strange_lines_are_passed_over(folders: Folders) -> None:
    folders.add("a.png", "b.png")
    save(load())
    record = folders.results / NAME
    whole = record.read_bytes()
    record.write_bytes(b'[]\n{"key": 5}\n\xff\n' + b"[" * 100_000 + b"\n" + whole[: len(whole) - 40])
    save(load())
    lines = [line for line in record.read_bytes().splitlines() if line.startswith(b'{"key": "b"')]
    assert [json.loads(line)["was"] for line in lines] == ["begun", "done"]
    assert is_over(load())


def test_two_servers_do_not_take_the_same_picture(folders: Folders) -> None:
    folders.add("a.png", "b.png")
    line = load().args[2].begun
    one, other = Record(folders.results), Record(folders.results)
    assert one.claim(line.__class__(**{**vars(line), "prompt": "one"}))
    assert not other.claim(line.__class__(**{**vars(line), "prompt": "other"}))
    assert load().args[4] == "b"


def test_a_batch_is_no_result(folders: Folders) -> None:
    folders.add("a.png")
    loaded = load()
    loaded.args = (loaded.args[0].repeat(2, 1, 1, 1), *loaded.args[1:])
    with pytest.raises(ValueError, match="expected one picture, got a batch of 2"):
        save(loaded)
