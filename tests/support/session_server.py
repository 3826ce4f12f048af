"""The server of the test session and the demo's prompt."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostrun.client import Client
from hostrun.gpu import has_gpu
from hostrun.paths import ROOT
from hostrun.server import HostServer, ServerOptions, free_port

from .fake_hub import FakeHub, fake_hub

DEMO_WORKFLOW = ROOT / "workflows" / "api" / "faithdiff_demo.json"
DEMO_FOLDER = ROOT / "demo"


def started_server(python: Path, host: Path, base: Path, *, cpu: bool) -> Iterator[HostServer]:
    """A running ComfyUI of this source with the pack in it, all that it writes in `base`; the demo's photos are its input."""
    running = HostServer(ServerOptions(python=python, host=host, base=base, port=free_port(), cpu=cpu))
    running.input_folder.mkdir(parents=True)
    for photo in DEMO_FOLDER.glob("*.png"):
        shutil.copyfile(photo, running.input_folder / photo.name)
    with running:
        yield running


@pytest.fixture(scope="session")
def server_hub() -> Iterator[FakeHub]:
    """What the server takes for the Hugging Face hub. It holds nothing but what a test puts there."""
    with fake_hub({}) as hub:
        yield hub


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, server_hub: FakeHub) -> Iterator[HostServer]:
    """The server of the test session, in a folder of its own."""
    python, base = Path(sys.executable), tmp_path_factory.mktemp("comfyui")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server_hub.url)
        yield from started_server(python, Path(os.environ["COMFYUI_PATH"]), base, cpu=not has_gpu(python))


@pytest.fixture
def client(server: HostServer) -> Iterator[Client]:
    """A websocket session of its own for each test."""
    with Client(server.url, check_server=server.check_running) as session:
        yield session


@pytest.fixture
def demo_prompt() -> dict[str, Any]:
    """The demo's API-format prompt, to be changed at will."""
    return json.loads(DEMO_WORKFLOW.read_text(encoding="utf-8"))
