"""One server with the pack and one Chromium for all tests of the folder. Without a host there is nothing to test here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_hub import FakeHub
from support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build" / "browser"
LEGIBLE = {"LiteGraph.Canvas.MinFontSizeForLOD": 0}  # titles in pictures of a whole graph, too

if not os.environ.get("COMFYUI_PATH"):
    collect_ignore_glob = ["*"]
sys.path.append(str(ROOT / "tools" / "frontend"))


class Frontend:
    """The front end in Chromium, by commands to tools/frontend/driver.mjs, and the server behind it."""

    def __init__(self, process: subprocess.Popen[str], server: Any) -> None:
        self._process = process
        self.server = server

    def ask(self, command: str, **options: Any) -> Any:
        """What the driver answers to a command. Raises AssertionError with its error, or if it is gone or hangs."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"command": command, **options}) + "\n")
        process.stdin.flush()
        timer = threading.Timer(PATIENCE_S, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"{command}: no answer from the browser"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def photograph(self, name: str, clip: dict[str, float] | None = None) -> Path:
        """The page, or a part of it ("x", "y", "width", "height"), as a file."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.ask("screenshot", path=str(path), clip=clip)
        return path


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory, server_hub: FakeHub) -> Iterator[Frontend]:
    """The pack in a ComfyUI as new as can be: its input folder holds what ComfyUI brings, weights are empty files."""
    from host_page import FIRST_VISIT_OVER, HERE, find_browser, make_server
    from hostrun.client import Client
    from hostrun.errors import SetupError
    from support import compare_page, workflows

    try:
        browser = find_browser()
    except SetupError as error:
        pytest.skip(str(error))
    base = tmp_path_factory.mktemp("browser")
    server = make_server(base)
    workflows.place_inputs(server.input_folder)
    compare_page.write_pictures(server.input_folder)
    workflows.place_stand_ins(base / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server_hub.url)
        server.start()
    with contextlib.ExitStack() as running:
        running.callback(server.stop)
        Client(server.url).post("/settings", FIRST_VISIT_OVER | LEGIBLE)
        job = {"server": server.url, "browser": browser, "profile": str(base / "profile")}
        process = subprocess.Popen(
            ["node", str(HERE / "driver.mjs"), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Chromium is of its group, and ends with it
        )
        try:
            yield Frontend(process, server)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
