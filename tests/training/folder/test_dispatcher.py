"""Which server gets which picture, and the record in the results folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.folder.dispatcher import MAX_LOST, Dispatcher, PictureTask
from training.folder.record import NAME, FolderRecord, Workflow, sha256_of

WORKFLOW = Workflow(file="w.json", sha256="f" * 64, settings=("8.seed=3",), input_node="1", output_node="4")
OTHER = Workflow(file="v.json", sha256="e" * 64, settings=(), input_node="1", output_node="4")


def share_of(count: int, *servers: str) -> Dispatcher:
    return Dispatcher([(f"p{index}", Path(f"p{index}.png")) for index in range(count)], servers)


def take(share: Dispatcher, server: str) -> PictureTask:
    task = share.take(server)
    assert task
    return task


def test_failures_come_last_and_go_to_another_server() -> None:
    share = share_of(2, "A", "B")
    first = take(share, "A")
    assert not share.failed(first, "A")
    assert take(share, "A").key == "p1"
    assert share.take("A") is None and not share.is_finished
    again = take(share, "B")
    assert again.key == first.key and share.failed(again, "B")
    share.done()
    assert share.is_finished and share.take("A") is None


def test_the_only_server_left_tries_again_itself() -> None:
    share = share_of(1, "A", "B")
    assert not share.failed(take(share, "A"), "A")
    assert share.take("A") is None
    share.leave("B", [])
    assert take(share, "A").failed_on == "A" and share.servers == ["A"]


def test_tasks_of_a_server_that_leaves_go_on_elsewhere() -> None:
    share = share_of(3, "A", "B")
    held = [take(share, "A"), take(share, "A")]
    share.leave("A", held)
    keys = sorted(take(share, "B").key for _ in range(3))
    assert keys == ["p0", "p1", "p2"] and not share.is_finished
    for _ in keys:
        share.done()
    assert share.is_finished


def test_lost_pictures_are_queued_again_but_not_for_ever() -> None:
    share = share_of(1, "A")
    share.put_back(take(share, "A"))  # never reached a server: does not count
    for _ in range(MAX_LOST):
        assert share.lost(take(share, "A"))
    assert not share.lost(take(share, "A")) and share.is_finished


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Path]:
    """A source and its result, recorded as done."""
    source, out = tmp_path / "in" / "a.png", tmp_path / "out"
    for path, text in ((source, b"source"), (out / "a.png", b"result")):
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
    hashes = {"source_sha256": sha256_of(b"source"), "result_sha256": sha256_of(b"result")}
    FolderRecord.open(out, WORKFLOW, again=False).put("a", {"status": "done", **hashes})
    return source, out


def test_what_is_done_and_unchanged_is_known_again(folder: tuple[Path, Path]) -> None:
    source, out = folder
    result = out / "a.png"

    def state(**options: Any) -> str:
        return FolderRecord.open(out, WORKFLOW, again=options.get("again", False)).state("a", source, result)

    assert state() == "done" and state(again=True) == "missing"
    result.write_bytes(b"retouched")
    assert state() == "changed"
    result.unlink()
    assert state() == "missing"
    result.write_bytes(b"result")
    source.write_bytes(b"another")
    assert state() == "missing"
    assert json.loads((out / NAME).read_text())["workflow"]["settings"] == ["8.seed=3"]


def test_a_retouched_result_stays_where_its_source_has_changed_too(folder: tuple[Path, Path]) -> None:
    source, out = folder
    (out / "a.png").write_bytes(b"retouched")
    source.write_bytes(b"another")
    assert FolderRecord.open(out, WORKFLOW, again=False).state("a", source, out / "a.png") == "changed"


def test_the_record_names_the_results_file_and_an_old_one_means_png(folder: tuple[Path, Path]) -> None:
    source, out = folder
    record = FolderRecord.open(out, WORKFLOW, again=False)
    assert record.result("a") == "a.png" and set(record.made()) == {"a.png"}
    hashes = {"source_sha256": sha256_of(b"source"), "result_sha256": sha256_of(b"exr")}
    (out / "a.exr").write_bytes(b"exr")
    record.put("a", {"status": "done", "result": "a.exr", **hashes})
    record.write()
    again = FolderRecord.open(out, WORKFLOW, again=False)
    assert again.result("a") == "a.exr" and again.state("a", source, out / again.result("a")) == "done"


@pytest.mark.parametrize("name", ["../a.exr", "b.png", "a/../../b.png", "a", 5])
def test_a_record_that_names_another_file_is_refused(folder: tuple[Path, Path], name: object) -> None:
    value = json.loads((folder[1] / NAME).read_text())
    value["pictures"]["a"]["result"] = name
    (folder[1] / NAME).write_text(json.dumps(value))
    with pytest.raises(ValueError, match="expected the record of an earlier run"):
        FolderRecord.open(folder[1], WORKFLOW, again=False)


def test_a_picture_at_fault_is_not_tried_again() -> None:
    share = share_of(1, "A", "B")
    assert share.failed(take(share, "A"), "A", for_good=True) and share.is_finished


def test_another_workflow_is_refused_once_there_are_results(folder: tuple[Path, Path]) -> None:
    source, out = folder
    with pytest.raises(ValueError, match=r"was begun with \(w.json 8.seed=3 ffffffff\), got v.json eeeeeeee; .*--again"):
        FolderRecord.open(out, OTHER, again=False)
    anew = FolderRecord.open(out, OTHER, again=True)
    anew.put("a", {"status": "failed"})
    # Nothing is done under it, so a mended workflow may follow; the failure was the former one's.
    assert FolderRecord.open(out, WORKFLOW, again=False).state("a", source, out / "a.png") == "missing"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 1}', '{"format": 2, "pictures": {}}', '{"format": 1, "pictures": {"a": {}}}']
)
def test_a_broken_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ValueError, match="expected the record of an earlier run"):
        FolderRecord.open(tmp_path, WORKFLOW, again=False)
