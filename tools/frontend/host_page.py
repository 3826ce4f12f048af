"""What the front-end tools and the tests in the browser share: the programs they need, a server to look at, stand-in files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostrun.client import Client
from hostrun.errors import SetupError
from hostrun.paths import BUILD, ROOT
from hostrun.server import HostServer, ServerOptions, free_port
from hostrun.status import working

HERE = Path(__file__).resolve().parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FIRST_VISIT_OVER = {"Comfy.TutorialCompleted": True}
"""A first visit opens a tour over the canvas."""
ONLY_THE_GRAPH = {
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}
"""The rest keeps the picture to the graph."""


def find_browser() -> str:
    """Path of Chromium; playwright-core is installed beside this file if it was not.

    Raises:
        SetupError: no Chromium, or no Node.js with npm.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    node, npm = shutil.which("node"), shutil.which("npm")
    if browser is None or node is None or npm is None:
        packages = {"chromium": browser, "nodejs": node, "npm": npm}
        absent = [name for name, found in packages.items() if found is None]
        got = f"got no {' and no '.join(absent)}"
        raise SetupError(f"expected Chromium and Node.js with npm, {got}; on Debian: apt-get install {' '.join(absent)}")
    if not (HERE / "node_modules").is_dir():
        code = subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=HERE).returncode
        if code != 0:
            raise SetupError(f"expected npm to install playwright-core, got exit code {code}; is there a network?")
    return browser


def make_server(base: Path) -> HostServer:
    """A server on the CPU that keeps everything in `base`. Not started."""
    host = Path(os.environ["COMFYUI_PATH"])
    return HostServer(ServerOptions(python=Path(sys.executable), host=host, base=base, port=free_port(), cpu=True))


def stand_ins(server: HostServer, models: Iterable[dict[str, Any]], photos: Iterable[str]) -> None:
    """Empty files in place of weights, so that the lists have their names, and photos by other names.

    Args:
        models: entries as in a workflow's `models`: "directory" under models/ and "name".
        photos: names to have in the input folder.
    """
    for model in models:
        path = server.options.base / "models" / model["directory"] / model["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    server.input_folder.mkdir(parents=True, exist_ok=True)
    for name in photos:
        shutil.copyfile(ROOT / "demo" / "photo_lq.png", server.input_folder / name)


def wanted_models(layout: dict[str, Any]) -> list[dict[str, str]]:
    """The "directory" and "name" of every weights file of a layout."""
    made = [{"name": name, "directory": folder} for name, folder in layout.get("made", {}).items()]
    return [*layout.get("models", {}).values(), *made]


def read_layout(path: Path) -> dict[str, Any]:
    """A layout as it is written down.

    Raises:
        SetupError: nothing is written down under that name.
    """
    if not path.is_file():
        raise SetupError(f"expected the file {path}, found none")
    return json.loads(path.read_text(encoding="utf-8"))


def screenshot_path(out: Path) -> Path:
    """Where the picture of a saved graph goes; its folder is made."""
    path = BUILD / "frontend" / f"{out.stem}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def serving(layouts: Iterable[dict[str, Any]]) -> Iterator[HostServer]:
    """A running server of its own, with stand-ins for what these layouts ask for.

    Args:
        layouts: "models" and "photos", and "made" (file name to folder) for weights that one makes oneself.

    Raises:
        SetupError: no browser; the server does not start.
    """
    find_browser()
    with tempfile.TemporaryDirectory(prefix="faithdiff-frontend-") as temporary:
        server = make_server(Path(temporary) / "base")
        for layout in layouts:
            stand_ins(server, wanted_models(layout), layout.get("photos", ()))
        try:
            with working("starting ComfyUI"):
                server.start()
            Client(server.url).post("/settings", FIRST_VISIT_OVER | ONLY_THE_GRAPH)
            yield server
        finally:
            server.stop()


def run_script(script: str, job: dict[str, Any], server: HostServer) -> int:
    """Run a script of this folder in a browser of its own; its exit code.

    Args:
        job: what the script reads; the server, the browser, its profile and the pack's version are added.
    """
    with tempfile.TemporaryDirectory(prefix="faithdiff-frontend-") as profile:
        job = job | {"server": server.url, "browser": find_browser(), "profile": profile, "version": _pack_version()}
        return subprocess.run(["node", str(HERE / script), json.dumps(job)]).returncode  # noqa: S607 - the user's own Node.js


def _pack_version() -> str:
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found is not None
    return found[1]
