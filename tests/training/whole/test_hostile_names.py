"""Names in manifests, shards, settings and servers' answers never lead out of the folder that was asked for, and a server that
answers nonsense, or without end, ends in a message."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fake_server import Answers, running
from support.trainer import png

from faithdiff_core.listing.walk import list_pictures
from training.cli import main
from training.common.images import read_image
from training.data import manifest
from training.data.prepare import find
from training.folder import client as queue_client

RECORD = {"key": "a", "path": "a.png", "width_px": 9, "height_px": 9, "digest": "0", "split": "val"}
PICTURE = png(1, 8, 8)
PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}


@pytest.mark.parametrize("key", ["../up", "a/../../up", "/etc/up", "..", "a\0b", "..\\up", "\udcff"])
def test_a_manifest_whose_keys_lead_out_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({**RECORD, "key": key}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a key that can name files on line 1 of .*make the manifest again"):
        manifest.read(path)


@pytest.mark.parametrize("offset", [0, 512, 10**12, 2**70])
def test_a_manifest_that_claims_a_terabyte_takes_none(tmp_path: Path, offset: int) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(bytes(1024))
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({**RECORD, "path": str(shard), "offset": offset, "size_bytes": 10**12}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected 1000000000000 bytes at .*a.tar, got .*copy it again"):
        read_image(manifest.read(path)[0])


@pytest.mark.parametrize("name", ["../up.png", "/etc/up.png", "a/../../up.png", "..\\up.png", "\udcff.png"])
def test_members_of_a_shard_with_such_names_are_left_out(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", errors="surrogateescape") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(PICTURE)
        archive.addfile(member, io.BytesIO(PICTURE))
    found = find([tmp_path / "a.tar"])
    assert not found.pictures and len(found.skipped) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dir\\a.png", r"dir\a: its name is absolute, leads out of its folder, or has a backslash, rename it"),
        ("\udcff.png", r"\udcff: its name is no UTF-8, rename it"),
    ],
)
def test_prepare_writes_no_key_that_it_would_refuse(
    tmp_path: Path, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        (tmp_path / name).write_bytes(PICTURE)
    except OSError:
        pytest.skip("this file system takes no such names")
    with tarfile.open(tmp_path / "s.tar", "w", errors="surrogateescape") as archive:
        for member in (tarfile.TarInfo(f"x{name}"), tarfile.TarInfo("b.png")):
            member.size = len(PICTURE + b"b")
            archive.addfile(member, io.BytesIO(PICTURE + b"b"))
    assert main(["prepare", str(tmp_path), "--min-side", "8", "--out", str(tmp_path / "m.jsonl")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"skipped {told}" in printed and sum(line.startswith("skipped ") for line in printed) == 2
    records = manifest.read(tmp_path / "m.jsonl")
    assert [record.key for record in records] == ["b"] and manifest.data_digest(records)


def test_a_manifest_whose_digests_are_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({**RECORD, "digest": "\ud800"}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected digests as UTF-8 on line 1 of"):
        manifest.read(path)


def test_an_eps_under_a_pictures_name_starts_no_program(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps", "EPS")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected a readable picture, got .*it is none of PNG"):
        read_image(tmp_path / "a.png")


class Hostile(Answers):
    """Takes prompts like a ComfyUI; what it says of them the test sets."""

    image: Any = {}
    pictures = PICTURE

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        if self.path.startswith("/view"):
            return self.answer(self.pictures)
        if self.path.startswith("/history/"):
            outputs = {"4": {"images": self.image if isinstance(self.image, list) else [self.image]}}
            return self.answer({self.path.split("/")[-1]: {"outputs": outputs, "status": {"status_str": "success"}}})
        return self.answer({"system": {}} if self.path == "/system_stats" else {"queue_running": [], "queue_pending": []})

    def do_POST(self) -> None:  # noqa: N802
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"name": "../../up.png", "subfolder": "../..", "type": "temp"})


@pytest.fixture
def hostile() -> Iterator[str]:
    with running(Hostile) as url:
        yield url


def restore(tmp_path: Path, url: str) -> int:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(PICTURE)
    (tmp_path / "w.json").write_text(json.dumps(PROMPT), encoding="utf-8")
    return main(["restore", str(tmp_path / "in"), str(tmp_path / "out"), "--workflow", str(tmp_path / "w.json"), "--server", url])


def written(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_servers_file_names_name_nothing_here(tmp_path: Path, hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hostile, "image", {"filename": "../../evil.png", "subfolder": "/etc", "type": "../output"})
    assert restore(tmp_path, hostile) == 0
    assert written(tmp_path) == {"in/a.png", "w.json", "out/a.png", "out/restore.json"}


@pytest.mark.parametrize("image", [["x"], [5], [None], [["a"]], {"filename": {"a": 1}}, {"filename": 5}, []])
def test_answers_that_make_no_sense_cost_a_picture_not_the_run(
    tmp_path: Path, hostile: str, monkeypatch: pytest.MonkeyPatch, image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Hostile, "image", image)
    assert restore(tmp_path, hostile) == 1
    assert "expected" in capsys.readouterr().err
    assert written(tmp_path) == {"in/a.png", "w.json", "out/restore.json"}


def test_a_server_that_sends_without_end_is_left(tmp_path: Path, hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_client, "MAX_ANSWER_BYTES", 2**20)
    monkeypatch.setattr(Hostile, "pictures", bytes(2**21))
    client = queue_client.QueueClient(hostile, {})
    with pytest.raises(queue_client.Refused, match="an answer of more than 1 MiB"):
        client.view({"filename": "a.png"})
    monkeypatch.setattr(Hostile, "image", {"filename": "a.png"})
    assert restore(tmp_path, hostile) == 1  # the picture is given up, not fetched again until the server is
    assert "an answer of more than 1 MiB" in (tmp_path / "out" / "restore.json").read_text(encoding="utf-8")


def test_folders_give_keys_below_them_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "up.png").write_bytes(PICTURE)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "up.png")
    assert [key for key, _ in list_pictures([tmp_path / "in" / ".." / "in"]).pictures] == ["link"]
