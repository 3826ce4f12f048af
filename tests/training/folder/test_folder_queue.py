"""`restore --workflow` against a server that takes prompts as ComfyUI does and answers as each test sets it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fake_server import Answers, running
from support.trainer import png

from training.cli import main
from training.folder.result import EXR_MAGIC

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
EXR = EXR_MAGIC + bytes(40)


class Server(Answers):
    """What it got is in `uploads`; `name` and `data` are its result, `fault` the node that fails."""

    uploads: list[bytes]
    name, data, fault = "x_00001_.png", png(1, 8, 8), ""

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        if self.path.startswith("/view"):
            return self.answer(self.data)
        if self.path.startswith("/history/"):
            status: dict[str, Any] = {"status_str": "success", "messages": []}
            if self.fault:
                failed = {"node_id": self.fault, "exception_message": "cannot read <_io.BytesIO object at 0x7f00beef>"}
                status = {"status_str": "error", "messages": [["execution_error", failed]]}
            outputs = {"4": {"images": [{"filename": self.name, "subfolder": "", "type": "output"}]}}
            return self.answer({self.path.split("/")[-1]: {"outputs": outputs, "status": status}})
        return self.answer({"system": {}} if self.path == "/system_stats" else {"queue_running": [], "queue_pending": []})

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/upload/image"):
            self.uploads.append(body)
        self.answer({"name": "a.png", "subfolder": "", "type": "temp"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "uploads", [], raising=False)
    with running(Server) as url:
        yield url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a.png, and the workflow beside it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(0, 8, 8))
    (tmp_path / "w.json").write_text(json.dumps(PROMPT), encoding="utf-8")
    return tmp_path / "in"


def restore(source: Path, out: Path, server: str, *more: str) -> int:
    workflow = next(folder / "w.json" for folder in source.parents if (folder / "w.json").is_file())
    return main(["restore", str(source), str(out), "--workflow", str(workflow), "--server", server, *more])


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "restore.json").read_text())["pictures"]


def test_a_result_keeps_its_bytes_and_suffix_and_the_next_run_knows_it(
    source: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "name", "x_00001_.exr")
    monkeypatch.setattr(Server, "data", EXR)
    out = tmp_path / "out"
    assert restore(source, out, server) == 0
    assert (out / "a.exr").read_bytes() == EXR and record(out)["a"]["result"] == "a.exr" and record(out)["a"]["mode"] is None
    assert sorted(path.name for path in out.iterdir()) == ["a.exr", "restore.json"]
    capsys.readouterr()
    (out / "a.png").write_bytes(b"the user has converted it")
    assert restore(source, out, server) == 0 and len(Server.uploads) == 1
    assert capsys.readouterr().out == f"{out}: 0 done, 1 done before\n"


def test_an_old_record_without_names_goes_on(source: Path, tmp_path: Path, server: str) -> None:
    out = tmp_path / "out"
    assert restore(source, out, server) == 0
    value = json.loads((out / "restore.json").read_text())
    del value["pictures"]["a"]["result"]
    (out / "restore.json").write_text(json.dumps(value))
    (source / "b.png").write_bytes(png(2, 8, 8))
    assert restore(source, out, server) == 0 and len(Server.uploads) == 2


def test_results_of_a_process_that_was_killed_are_made_again(source: Path, tmp_path: Path, server: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"x")
    (out / "made.jsonl").write_text(json.dumps({"file": "a.png", "sha256": hashlib.sha256(b"x").hexdigest()}) + "\n")
    assert restore(source, out, server) == 0 and (out / "a.png").read_bytes() == Server.data
    (out / "restore.json").unlink()
    assert restore(source, out, server) == 2


def test_a_server_cannot_choose_the_name_of_a_source(
    source: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "name", "x.jpg")
    photo = source / "b.jpg"
    Image.new("RGB", (8, 8)).save(photo)
    before = photo.read_bytes()
    assert restore(photo, source, server, "--again") == 1
    assert photo.read_bytes() == before and "apart from the sources" in capsys.readouterr().err


@pytest.mark.parametrize(("fault", "times"), [("1", 1), ("4", 2)])
def test_a_picture_at_fault_is_sent_once(
    fault: str, times: int, source: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(Server, "fault", fault)
    assert restore(source, tmp_path / "out", server) == 1
    told = capsys.readouterr()
    assert len(Server.uploads) == times and " object at 0x" not in told.err + json.dumps(record(tmp_path / "out"))
    assert told.out == f"{tmp_path / 'out'}: 0 done, 1 failed\n"


def test_bad_hidden_unread_and_unnamed_files_cost_only_themselves(
    source: Path, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "bad.png").write_bytes(b"no picture")
    (source / "._a.png").write_bytes(b"")
    (source / "x.heic").write_bytes(b"")
    unnamed = True
    try:
        (source / "b\udcff.png").write_bytes(png(3, 8, 8))
    except OSError:
        unnamed = False
    moving = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    moving[0].save(source / "m.webp", save_all=True, append_images=moving[1:], lossless=True)
    assert restore(source, tmp_path / "out", server) == 1
    told = capsys.readouterr()
    assert told.out.startswith(f"{tmp_path / 'out'}: 2 done, {2 + unnamed} left out (1 hidden, ") and told.out.endswith(
        ", 1 failed\n"
    )
    assert "warning: m: has 2 frames or pages, of which the first is taken" in told.err and len(Server.uploads) == 2
    assert "convert it to PNG or TIFF" in told.err and "failed: bad: expected a readable picture" in told.err
    sent = next(body for body in Server.uploads if b"IHDR" in body and b"acTL" not in body and png(0, 8, 8) not in body)
    with Image.open(io.BytesIO(sent[sent.index(b"\x89PNG") :])) as first:
        assert first.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_the_pictures_are_refused_before_a_server_is_asked(source: Path, tmp_path: Path, server: str) -> None:
    (source / "A.jpg").write_bytes(png(0, 8, 8))
    assert restore(source, tmp_path / "out", server) == 2 and not Server.uploads and not (tmp_path / "out").exists()
