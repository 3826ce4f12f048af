"""What `restore --workflow` says to wrong input before it talks to anybody, and how it reads servers' answers."""

from __future__ import annotations

import http.server
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.cli import main
from training.folder.address import header, server_url
from training.folder.client import NoAnswer, QueueClient, describe_refusal
from training.folder.prompt import make_form
from training.folder.result import EXR_MAGIC, NoResult, PictureAtFault, Result, Upload, for_upload, read_ending, read_result

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
FORM = make_form(PROMPT)


def picture(mode: str, kind: str) -> bytes:
    data = io.BytesIO()
    Image.new(mode, (3, 2)).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("http://a.example:80/", "http://a.example:80"),
        ("https://a.example/comfy/", "https://a.example/comfy"),
        ("http://[::1]:8188", "http://[::1]:8188"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://a", "http://", "http://a:port", "http://a:0", "http://a/?b=c", "http://user:p4ss@a"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^expected a server") as raised:
        server_url(text)
    assert "p4ss" not in str(raised.value)


def test_headers() -> None:
    assert header("Authorization: Bearer a:b") == ("Authorization", "Bearer a:b")
    for text in ("token", ": x", "A B: x", "A:", "A: x\nB: y", "A: \u00e9"):
        with pytest.raises(ValueError, match='expected a header as "Name: value"'):
            header(text)


@pytest.fixture(scope="module")
def not_comfyui() -> Iterator[str]:
    """A web server that is no ComfyUI: a page for everything, but a redirect and a locked door."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            code = {"/moved/system_stats": 302, "/locked/system_stats": 401}.get(self.path, 200)
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "/stolen" if "X-Token" in self.headers else "/")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "message"), [("", "an answer that is not ComfyUI's"), ("/moved", "HTTP 302"), ("/locked", "HTTP 401 .*--header")]
)
def test_what_is_no_comfyui_is_told_from_one(path: str, message: str, not_comfyui: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not asked for this machine
    with pytest.raises(NoAnswer, match=message):
        QueueClient(not_comfyui + path, {"X-Token": "secret"}).check()


def entry(
    *messages: tuple[str, dict[str, Any]], status: str = "success", outputs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"status": {"status_str": status, "messages": [list(message) for message in messages]}, "outputs": outputs or {}}


SAVED = {"filename": "a.png", "subfolder": "", "type": "output"}


def test_history_is_read() -> None:
    stamps = [
        ("execution_start", {"timestamp": 1000}),
        ("execution_cached", {"timestamp": 1100}),
        ("execution_success", {"timestamp": 3500}),
    ]
    ending = read_ending(entry(*stamps, outputs={"4": {"images": [SAVED]}}), FORM)
    assert (ending.image, ending.seconds) == (SAVED, 2.5)
    assert read_ending(entry(outputs={"4": {"images": [SAVED]}}), FORM).seconds is None


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (entry(outputs={"1": {"images": [SAVED]}}), "expected one picture from node 4 (SaveImage), got 0"),
        (entry(outputs={"4": {"images": [SAVED, SAVED]}}), "expected one picture from node 4 (SaveImage), got 2"),
        (entry(("execution_error", {"node_id": "1", "exception_message": "no\n memory "})), "node 1 (LoadImage): no memory"),
        (entry(("execution_error", {"node_id": "1", "exception_message": "", "exception_type": "E"})), "node 1 (LoadImage): E"),
        (entry(("execution_interrupted", {"node_id": "4"}), status="error"), "interrupted on the server in node 4 (SaveImage)"),
        (entry(status="error"), "ComfyUI says only that it failed"),
    ],
)  # fmt: skip
def test_history_without_a_picture_says_why(history: dict[str, Any], message: str) -> None:
    with pytest.raises(NoResult) as raised:
        read_ending(history, FORM)
    assert str(raised.value).startswith(message) and isinstance(raised.value, PictureAtFault) == message.startswith("node 1 ")


def test_refusals_name_node_and_reason() -> None:
    errors = [
        {"message": "Value not in list", "details": "image: 'x'\nnot in [...]"},
        {"message": "Required input", "details": ""},
    ]
    answer = {"error": {"message": "Prompt outputs failed"}, "node_errors": {"1": {"errors": errors}}}
    told = "node 1 (LoadImage): Value not in list: image: 'x' not in [...]; node 1 (LoadImage): Required input"
    assert describe_refusal(answer, PROMPT) == told
    assert (
        describe_refusal({"error": {"message": "Node 'A' not found.", "details": "#3"}, "node_errors": []}, PROMPT)
        == "Node 'A' not found. #3"
    )
    assert describe_refusal(["odd"], PROMPT) == ""


@pytest.mark.parametrize(
    ("kind", "mode", "name", "suffix"),
    [
        ("PNG", "RGBA", "a.png", ".png"),
        ("JPEG", "CMYK", "a.JPG", ".jpg"),
        ("WEBP", "RGB", "a.webp", ".webp"),
        ("PNG", "L", "a", ".png"),
    ],
)
def test_results_are_decoded_and_stay_as_they_are(kind: str, mode: str, name: str, suffix: str) -> None:
    data = picture(mode, kind)
    found = read_result(data, name)
    assert (found.data, found.suffix, found.width_px, found.height_px, found.mode) == (data, suffix, 3, 2, mode)


def test_what_is_not_read_here_is_kept_as_it_is() -> None:
    data = EXR_MAGIC + bytes(20)
    assert read_result(data, "x/a_00001_.EXR") == Result(data=data, suffix=".exr", width_px=None, height_px=None, mode=None)


@pytest.mark.parametrize("name", ["a.png", "a.exr", "a.jxl", "a.html", ""])
@pytest.mark.parametrize("data", [b"", b"<html>", picture("RGBA", "PNG")[:-20]])
def test_what_is_no_picture_is_no_result(name: str, data: bytes) -> None:
    if data and name == "a.jxl":
        return  # nothing here can tell
    with pytest.raises(NoResult, match="expected a picture from the server") as raised:
        read_result(data, name)
    assert " object at 0x" not in str(raised.value)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_a_server_gets_the_first_and_the_user_a_warning(kind: str) -> None:
    data = io.BytesIO()
    first, second = (Image.new("RGB", (6, 4), colour) for colour in ((200, 10, 10), (10, 200, 10)))
    more = {"lossless": True} if kind == "WEBP" else {}
    first.save(data, kind, save_all=True, append_images=[second], **more)
    upload = for_upload(data.getvalue(), f"a.{kind.lower()}", FORM)
    assert upload.warnings == ("has 2 frames or pages, of which the first is taken",) and upload.suffix == ".png"
    with Image.open(io.BytesIO(upload.data)) as sent:
        assert getattr(sent, "n_frames", 1) == 1 and sent.convert("RGB").getpixel((0, 0)) == (200, 10, 10)
    alone = picture("RGB", "PNG")
    assert for_upload(alone, "a.x", FORM) == Upload(data=alone, suffix=".x", warnings=())


def test_what_is_no_picture_is_not_sent() -> None:
    with pytest.raises(PictureAtFault, match="expected a readable picture, got a.png .*it is none of PNG, JPEG") as raised:
        for_upload(b"not a picture", "a.png", FORM)
    assert " object at 0x" not in str(raised.value)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected a ComfyUI that answers, got none (http://127.0.0.1:{port}: "),
        (["--workflow", "graph.json"], "got a graph as the editor saves it"),
        (["--set", "1.imag=x"], "did you mean 'image'"),
        (["--steps", "5", "--colour", "adain"], "expected only options that go with --workflow, got --steps, --colour"),
        (["--server", "127.0.0.1:{port}"], "expected each --server once"),
        (["--ahead", "0"], "expected --ahead of at least 1"),
        (["--give-up-after", "nan"], "--give-up-after above 0"),
        (["--header", "secret"], "expected a header"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "w.json").write_text(json.dumps(PROMPT))
    (tmp_path / "graph.json").write_text('{"nodes": []}')
    port = unused_port()
    given = [text.format(port=port) for text in ["--workflow", "w.json", "--server", "http://127.0.0.1:{port}", *options]]
    assert main(["restore", "a.png", "out", *given]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: expected") and message.format(port=port) in err and err.count("\n") == 1
    assert "secret" not in err and not (tmp_path / "out").exists()


def test_the_two_ways_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--server", "a"], "options that go with --model, got --server"),
        ([], "expected --vae FILE with --model"),
    ):
        assert main(["restore", str(tmp_path), str(tmp_path / "out"), "--model", "m.safetensors", *options]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["restore", str(tmp_path), str(tmp_path / "out")])
