"""Which files of a folder are pictures, what a command may write over, and how it ends."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image, features
from support.trainer import picture, png

from faithdiff_core.listing.kinds import LeftOut
from faithdiff_core.listing.walk import list_pictures
from faithdiff_core.photo import read
from faithdiff_core.photo.photo import MAX_PX
from training.common.folders import Tally, over_pictures, require_pictures, without_scale
from training.common.images import open_picture, png_bytes, read_image, read_picture
from training.common.results import ResultsFolder, require_own


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def keys(folder: Path) -> list[str]:
    return [key for key, _ in list_pictures([folder]).pictures]


def test_every_format_that_pillow_reads_here_is_taken(tmp_path: Path) -> None:
    names = ["a.png", "b.JPG", "c.jfif", "d.gif", "e.webp", "f.bmp", "g.tiff", "a.b.png"]
    write(tmp_path, *names, "notes.txt", "photo.json")
    assert keys(tmp_path) == ["a", "a.b", "b", "c", "d", "e", "f", "g"] and not list_pictures([tmp_path]).left_out
    for kind, suffix in (("JPEG", "jfif"), ("GIF", "gif"), *((("AVIF", "avif"),) if features.check("avif") else ())):
        Image.new("RGB", (16, 12), (90, 90, 90)).save(tmp_path / f"x.{suffix}", kind)
        assert tuple(read_image(list_pictures([tmp_path / f"x.{suffix}"]).pictures[0][1]).shape) == (3, 12, 16)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("a.HEIC", ".heic", "convert it to PNG or TIFF"),
        ("a.cr3", ".cr3", "develop it"),
        ("a.exr", ".exr", "convert it"),
        ("a.tar.gz", ".tar.gz", "unpack it"),
        ("a.tgz", ".tgz", "unpack it"),
        ("a.tar", ".tar", "unpack it"),
        ("a.zip", ".zip", "unpack it"),
    ],
)
def test_other_formats_and_archives_are_named(name: str, kind: str, told: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    listed = list_pictures([tmp_path])
    assert not listed.pictures and [item.kind for item in listed.left_out] == [kind] and told in listed.left_out[0].reason
    for work in (lambda: list_pictures([tmp_path / name]), lambda: require_pictures(listed, tmp_path)):
        with pytest.raises(ValueError, match=rf"expected (a picture|pictures in).*{told}"):
            work()


def test_hidden_files_and_folders_are_counted_and_left_out(tmp_path: Path) -> None:
    hidden = ["._card.png", "@eaDir/a.png", ".thumbnails/b.png", "__MACOSX/c.png", "sub/#recycle/d.png"]
    write(tmp_path, "a.png", "sub/b.png", ".DS_Store", *hidden, "$RECYCLE.BIN/e.png", "lost+found/f.png")
    listed = list_pictures([tmp_path])
    assert [key for key, _ in listed.pictures] == ["a", "sub/b"]
    assert {item.kind for item in listed.left_out} == {"hidden"} and len(listed.left_out) == 7
    assert Tally(left_out=listed.left_out, done=2).summary() == "2 done, 7 left out (7 hidden)"
    assert keys(tmp_path / ".thumbnails") == ["b"]  # a folder that is asked for


def test_names_that_are_no_utf8_are_named_and_cost_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    try:
        write(tmp_path, "b\udcff.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    listed = list_pictures([tmp_path])
    assert [key for key, _ in listed.pictures] == ["a"]
    (line,) = Tally(left_out=listed.left_out).lines()
    assert line.encode() and line.endswith("b\\udcff.png: its name is no UTF-8, rename it")


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links_that_are_not_followed_are_named(tmp_path: Path) -> None:
    write(tmp_path, "in/a.png", "other/b.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "other" / "b.png")
    listed = list_pictures([tmp_path / "in"])
    assert [key for key, _ in listed.pictures] == ["a", "c"]
    assert {item.kind for item in listed.left_out} == {"linked folder", "no file"}


def results(source: Path, out: Path, *, again: bool = False) -> ResultsFolder:
    return ResultsFolder(source, out, list_pictures([source]).pictures, again=again)


@pytest.mark.parametrize(
    ("names", "source", "out", "message"),
    [
        (["in/a.png", "in/a.jpg"], "in", "out", "expected one picture per name, got "),
        (["in/a.png", "in/A.jpg"], "in", "out", "expected one picture per name, got "),
        (["in/\u00e4.png", "in/a\u0308.jpg"], "in", "out", "expected one picture per name, got "),
        (["in/a.png"], "in", "in", "apart from the sources"),
        (["in/a.png"], "in", "in/restored", "apart from the sources"),
        (["b/a.png", "b/b/a.png"], "b", ".", "apart from the sources"),
        (["a.png"], "a.png", ".", "apart from the sources"),
        (["in/a.png", "out/a.png"], "in", "out", "expected an empty folder or that of an earlier run"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_no_result_can_take_the_place_of_anything(
    names: list[str], source: str, out: str, message: str, again: bool, tmp_path: Path
) -> None:
    write(tmp_path, *names)
    if again and "earlier run" in message:
        results(tmp_path / source, tmp_path / out, again=True)
        return
    with pytest.raises(ValueError, match=message):
        results(tmp_path / source, tmp_path / out, again=again)


def test_apart_and_new_folders_are_fine(tmp_path: Path) -> None:
    write(tmp_path, "in/a.png", "in/v1.2/a.b.png", "out/old.txt")
    assert results(tmp_path / "in", tmp_path / "out").check("v1.2/a.b.png") == tmp_path / "out" / "v1.2" / "a.b.png"
    results(tmp_path / "in" / "a.png", tmp_path / "in" / "x")


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_source_under_another_name_is_the_same_file(tmp_path: Path) -> None:
    write(tmp_path, "in/a.png")
    (tmp_path / "linked").symlink_to(tmp_path / "in", target_is_directory=True)
    for name in ("soft", "hard", "deep"):
        (tmp_path / name).mkdir()
    (tmp_path / "soft" / "a.png").symlink_to(tmp_path / "in" / "a.png")
    (tmp_path / "hard" / "a.png").hardlink_to(tmp_path / "in" / "a.png")  # as a disk that knows no case has it
    for name in ("linked", "soft", "hard"):
        with pytest.raises(ValueError, match="apart from the sources"):
            results(tmp_path / "in", tmp_path / name, again=True)
    (tmp_path / "deep" / "a.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="earlier run"):
        results(tmp_path / "in", tmp_path / "deep")


def test_results_of_an_earlier_run_are_replaced_until_somebody_changes_them(tmp_path: Path) -> None:
    write(tmp_path, "in/a.png", "in/b.png")
    results(tmp_path / "in", tmp_path / "out").write("a.png", b"first")
    with (tmp_path / "out" / ResultsFolder.MADE).open("a") as lines:
        lines.write('{"file": "b.p')  # a killed process
    results(tmp_path / "in", tmp_path / "out").write("a.png", b"second")
    results(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out" / "a.png").write_bytes(b"retouched")
    with pytest.raises(ValueError, match="not a result of one"):
        results(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "a.png").read_bytes() == b"retouched"


def test_a_file_of_another_kind_or_a_source_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "report.json"

    def own(found: Path) -> bool:
        return "rows" in json.loads(found.read_text())

    require_own(path, "report", own)
    path.write_text('{"rows": {}}')
    require_own(path, "report", own)
    with pytest.raises(ValueError, match="expected another file than those that are read"):
        require_own(path, "report", own, [None, tmp_path / "." / "report.json"])
    for text in ("{}", "no JSON"):
        path.write_text(text)
        with pytest.raises(ValueError, match="expected a new file or an earlier report, got .*something else"):
            require_own(path, "report", own)


def test_one_bad_picture_does_not_end_the_others(tmp_path: Path) -> None:
    for name, data in (("a.png", png(0)), ("b.png", b"no picture"), ("c.png", png(1))):
        (tmp_path / name).write_bytes(data)

    def work(_: str, path: Path) -> tuple[str, ...]:
        return (*read_picture(path).warnings, "as an example") if path.stem == "c" else read_picture(path).warnings

    tally = over_pictures(list_pictures([tmp_path]), work)
    assert (tally.exit_code, tally.summary()) == (1, "2 done, 1 failed")
    warned, failed = tally.lines()
    assert warned == "warning: c: as an example" and failed.startswith("failed: b: expected a readable picture, got ")
    assert " object at 0x" not in failed


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken_with_a_warning(kind: str, tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (6, 4), colour) for colour in ((200, 10, 10), (10, 200, 10)))
    path = tmp_path / f"a.{kind.lower()}"
    first.save(path, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    found = read_picture(path)
    assert found.image_u8[:, 0, 0].tolist() == [200, 10, 10]
    assert found.warnings == ("has 2 frames or pages, of which the first is taken",)


def test_the_limit_is_the_area_and_the_largest_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PX == 16384 * 16384
    Image.new("1", (20000, 10000)).save(tmp_path / "wide.png")
    with open_picture(tmp_path / "wide.png", "wide") as opened:
        assert opened.size == (20000, 10000)
    Image.new("1", (16385, 16384)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"^expected a picture of at most 268435456 px .* of 16385 x 16384 px; make it smaller$"):
        read_image(tmp_path / "large.png")
    monkeypatch.setattr(read, "MAX_PX", 128 * 96)
    assert read_image(_file(tmp_path, png(0))).shape[1:] == (96, 128)
    assert Image.MAX_IMAGE_PIXELS is not None, "other programs' pictures are as safe as before"


def _file(folder: Path, data: bytes) -> Path:
    (folder / "a.png").write_bytes(data)
    return folder / "a.png"


def test_png_bytes_hold_the_pixels() -> None:
    with Image.open(io.BytesIO(png_bytes(picture(3)))) as opened:
        assert opened.size == (128, 96) and opened.mode == "RGB"


def test_a_scale_in_a_name_is_matched_where_the_plain_name_is_known() -> None:
    assert without_scale({"0001x4": 1, "0002": 2, "box4": 3, "a/0003x8": 4}, ["0001", "0002", "bo", "a/0003"]) == {
        "0001": 1, "0002": 2, "bo": 3, "a/0003": 4,
    }  # fmt: skip
    assert without_scale({"0001x4": 1, "0002x4": 2}, ["0001x4", "0001"]) == {"0001x4": 1, "0002x4": 2}
    assert without_scale({"0001x4w2": 1}, ["0001"]) == {"0001": 1}
    with pytest.raises(ValueError, match="expected one picture for '0001', got '0001x2' and '0001x4'"):
        without_scale({"0001x2": 1, "0001x4": 2}, ["0001"])


def test_the_last_line_counts_by_kind() -> None:
    left = [LeftOut(path=name, kind=".heic", reason="convert it") for name in ("a", "b")] + [LeftOut(path="c", kind="hidden")]
    tally = Tally(left_out=left, done=3, failed={"x": "no"})
    assert tally.summary(["4 done before"], shares="A 1, B 2") == (
        "3 done (A 1, B 2), 4 done before, 3 left out (2 .heic, 1 hidden), 1 failed"
    )
    assert tally.lines() == ["left out: a, b: convert it", "failed: x: no"]


def test_a_foreign_list_of_results_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    list_ = tmp_path / "out" / ResultsFolder.MADE
    for text in ('{"my": "captions"}\n', "notes\n", '{"my": 1}\n{"my": 2}\n'):
        list_.write_text(text)
        with pytest.raises(ValueError, match="expected the list of an earlier run"):
            ResultsFolder(tmp_path / "in", tmp_path / "out", [], again=True)
        assert list_.read_text() == text
    list_.unlink()
    (tmp_path / "mine.txt").write_text("mine")
    list_.symlink_to(tmp_path / "mine.txt")
    with pytest.raises(ValueError, match="expected the list of an earlier run"):
        ResultsFolder(tmp_path / "in", tmp_path / "out", [], again=False)


def test_a_result_that_is_retouched_while_the_run_goes_on_stays(tmp_path: Path) -> None:
    pictures = [("a", tmp_path / "a.png")]
    first = ResultsFolder(tmp_path / "in", tmp_path / "out", pictures, again=False)
    first.write("a.png", b"made")
    second = ResultsFolder(tmp_path / "in", tmp_path / "out", pictures, again=False)
    (tmp_path / "out" / "a.png").write_bytes(b"retouched")
    with pytest.raises(ValueError, match="which is not a result of one"):
        second.write("a.png", b"made again")
    assert (tmp_path / "out" / "a.png").read_bytes() == b"retouched"


def test_a_folder_of_a_results_name_is_refused_at_the_start(tmp_path: Path) -> None:
    pictures = [("y", tmp_path / "y.jpg"), ("y.png/b", tmp_path / "y.png" / "b.png")]
    with pytest.raises(ValueError, match="expected no folder of a result's name"):
        ResultsFolder(tmp_path / "in", tmp_path / "out", pictures, again=False)
