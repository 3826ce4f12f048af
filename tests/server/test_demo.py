"""tools/demo.py, run as a user runs it: pictures and paths, no process left after Ctrl-C, one clear line for what goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import pytest
from hostrun import demo
from hostrun.errors import SetupError
from hostrun.paths import TOOLS
from hostrun.server import HostServer, ServerOptions, free_port
from PIL import Image
from support.patience import PATIENCE_S
from support.workflows import api_prompt, node_of


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts tools/demo.py with output to tmp_path/out; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, host: str | None = None) -> subprocess.Popen[str]:
        variables = os.environ | {"COMFYUI_PYTHON": sys.executable, "COMFYUI_PATH": host or os.environ["COMFYUI_PATH"]}
        command = [sys.executable, str(TOOLS / "demo.py"), "--out", str(tmp_path / "out"), *arguments]
        process = subprocess.Popen(
            command,
            env=variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in [*started, *server_processes(tmp_path)]:
        try:
            process.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass


def server_processes(folder: Path) -> list[psutil.Process]:
    """Every process whose command line names `folder`, as the server's does."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if "main.py" in command and str(folder) in command and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for_server(folder: Path, demo_process: subprocess.Popen[str]) -> None:
    def is_there() -> bool:
        assert demo_process.poll() is None, demo_process.communicate()
        return bool(server_processes(folder))

    wait_until(is_there, "server process")


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE_S} s"
        time.sleep(0.1)


def read_until(stream: IO[str] | None, text: str) -> str:
    """What a command writes up to the line with `text`."""
    assert stream is not None
    read = ""
    for line in stream:
        read += line
        if text in line:
            return read
    raise AssertionError(f"ended without {text!r}:\n{read}")


def test_demo_writes_both_pictures_and_prints_where_they_are(
    start_demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    prompt = api_prompt("faithdiff_demo")
    prompt[node_of(prompt, "FaithDiffSampler")]["inputs"]["steps"] = 3  # all of them: test_queue.py
    (tmp_path / "short.json").write_text(json.dumps(prompt))
    out, err = start_demo("--workflow", str(tmp_path / "short.json")).communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
    restored, sheet = (Image.open(tmp_path / "out" / name) for name in ("restored.png", "before_after.png"))
    assert str(tmp_path / "out" / "restored.png") in out and str(tmp_path / "out" / "before_after.png") in out
    assert sheet.width > 2 * restored.width - 1 and "nano" in out
    assert f"{restored.width}x{restored.height} px" in out
    assert "steps" in err
    assert server_processes(tmp_path) == []
    told = dict(re.findall(r"(enlarged|restored) ([0-9.]+) dB, SSIM 0[.][0-9]{3}", out))
    with Image.open(demo.PHOTOS / "photo_hq.png") as truth, Image.open(demo.PHOTOS / "photo_lq.png") as photo:
        enlarged = photo.convert("RGB").resize(truth.size, Image.Resampling.LANCZOS)
        for name, picture in (("enlarged", enlarged), ("restored", restored)):
            assert float(told[name]) == pytest.approx(psnr_db(picture, truth), abs=0.006), "two decimals are told"


def psnr_db(picture: Image.Image, truth: Image.Image) -> float:
    one, other = (np.asarray(each.convert("RGB"), dtype=np.float64) for each in (picture, truth))
    return float(10.0 * np.log10(255.0**2 / np.square(one - other).mean()))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopping_while_the_server_starts_leaves_no_process(
    sign: signal.Signals, start_demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start_demo()
    wait_for_server(tmp_path, process)
    process.send_signal(sign)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "stopped" in err and "Traceback" not in err, err
    assert server_processes(tmp_path) == []


def test_ctrl_c_while_the_prompt_runs_leaves_no_process(start_demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start_demo()
    read_until(process.stderr, "through the queue")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert server_processes(tmp_path) == []
    assert not (tmp_path / "out" / "restored.png").exists()


def test_killed_demo_takes_the_server_with_it(start_demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent is gone")
    process = start_demo()
    wait_for_server(tmp_path, process)
    process.kill()
    wait_until(lambda: not server_processes(tmp_path), "end of the server")


def test_busy_port_is_one_line(start_demo: Callable[..., subprocess.Popen[str]]) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        process = start_demo("--port", str(port))
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and out == ""
    assert err == f"error: expected port {port} to be free, got a program that listens on it; choose another: PORT={port + 1}\n"


def test_server_that_dies_shows_the_end_of_its_log(start_demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    host = tmp_path / "host"
    (host / "comfy").mkdir(parents=True)
    for name in ("nodes.py", "folder_paths.py", "comfy/sd.py"):
        (host / name).touch()
    (host / "main.py").write_text("print('one last word')\nraise SystemExit(7)\n")
    process = start_demo(host=str(host))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "error: ComfyUI ended by itself (exit code 7). The end of its log " in err
    assert "one last word" in err and str(tmp_path / "out") in err and "Traceback" not in err


def test_missing_photo_and_missing_workflow_are_one_line(
    start_demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    for arguments, text in (
        (("--photos", str(tmp_path)), "error: expected the photo "),
        (("--workflow", str(tmp_path / "none.json")), "error: expected the workflow "),
    ):
        process = start_demo(*arguments)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2 and err.startswith(text) and err.count("\n") == 1, err


def test_no_disk_for_the_pictures_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    assert demo.demo_command(["--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert (
        err.startswith(f"error: expected 50 MB free for the pictures in {tmp_path / 'out'}, got 0 MB; ") and err.count("\n") == 1
    )


@pytest.mark.long
def test_pack_that_fails_to_import_is_reported_with_the_reason(tmp_path: Path) -> None:
    pack = tmp_path / "broken"
    pack.mkdir()
    (pack / "__init__.py").write_text("import no_such_module_of_ours\n")
    options = ServerOptions(
        python=Path(sys.executable),
        host=Path(os.environ["COMFYUI_PATH"]),
        base=tmp_path / "base",
        port=free_port(),
        cpu=True,
        pack=pack,
    )
    with HostServer(options) as server, pytest.raises(SetupError) as failed:
        demo._check_nodes({"LoadImage": {}}, {"1": {"class_type": "FaithDiffSampler"}}, server)
    assert "FaithDiffSampler missing. ComfyUI says: " in str(failed.value)
    assert "No module named 'no_such_module_of_ours'" in str(failed.value)
