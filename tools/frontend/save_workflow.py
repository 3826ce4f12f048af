"""Turns an API-format prompt into a UI-format workflow, saved by ComfyUI's own front end in a real browser. For developers.

    python3 tools/environment.py --run tools/frontend/save_workflow.py workflows/api/NAME.json workflows/NAME.json

Needs Node.js 20 or newer with npm, and Chromium (Debian: apt-get install nodejs npm chromium). Where things stand on the
canvas, groups, notes and model links come from tools/frontend/layouts/NAME.json. A picture goes to build/frontend/NAME.png.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from hostrun.client import Client  # noqa: E402 - tools/ is on the path only from here on
from hostrun.errors import SetupError, run_command  # noqa: E402
from hostrun.paths import BUILD, ROOT  # noqa: E402
from hostrun.server import HostServer, ServerOptions, free_port  # noqa: E402
from hostrun.status import say, working  # noqa: E402

# A first visit opens a tour over the canvas; the rest keeps the picture to the graph.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="save_workflow.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("api", type=Path, help="API-format prompt, e.g. workflows/api/faithdiff_upscale.json")
    parser.add_argument("out", type=Path, help="UI-format workflow to write, e.g. workflows/faithdiff_upscale.json")
    options = parser.parse_args(arguments)
    return run_command(lambda: _save(options.api.absolute(), options.out.absolute()))


def _save(api: Path, out: Path) -> int:
    layout = HERE / "layouts" / f"{out.stem}.json"
    for path in (api, layout):
        if not path.is_file():
            raise SetupError(f"expected the file {path}, found none")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None or shutil.which("npm") is None:
        raise SetupError("expected Chromium and Node.js with npm, got not both; on Debian: apt-get install chromium nodejs npm")
    if not (HERE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=HERE, check=True)
    screenshot = BUILD / "frontend" / f"{out.stem}.png"
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="faithdiff-frontend-") as temporary:
        server = HostServer(
            ServerOptions(
                python=Path(sys.executable),
                host=Path(os.environ["COMFYUI_PATH"]),
                base=Path(temporary) / "base",
                port=free_port(),
                cpu=True,
            )
        )
        _stand_ins(server, json.loads(layout.read_text(encoding="utf-8")))
        try:
            with working("starting ComfyUI"):
                server.start()
            Client(server.url).post("/settings", SETTINGS)
            job = {
                "server": server.url,
                "browser": browser,
                "profile": str(Path(temporary) / "profile"),
                "version": _pack_version(),
            }
            job |= {"api": str(api), "layout": str(layout), "out": str(out), "screenshot": str(screenshot)}
            code = subprocess.run(["node", str(HERE / "save_workflow.mjs"), json.dumps(job)]).returncode
        finally:
            server.stop()
    if code == 0:
        say(f"saved {out}\npicture {screenshot}")
    return code


def _stand_ins(server: HostServer, layout: dict[str, Any]) -> None:
    """Empty files in place of the weights, so that the lists have their names, and a photo."""
    for model in layout.get("models", {}).values():
        folder = server.options.base / "models" / model["directory"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / model["name"]).touch()
    server.input_folder.mkdir(parents=True, exist_ok=True)
    for name in layout.get("photos", ()):
        shutil.copyfile(ROOT / "demo" / "photo_lq.png", server.input_folder / name)


def _pack_version() -> str:
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found is not None
    return found[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
