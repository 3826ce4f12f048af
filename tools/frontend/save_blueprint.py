"""Saves a subgraph blueprint from ComfyUI's own front end in a real browser. For developers.

    python3 tools/environment.py --run tools/frontend/save_blueprint.py "subgraphs/FaithDiff Upscale.json"

It is the subgraph of that name in the template faithdiff_upscale. A picture of the inside goes to build/frontend/NAME.png. Needs
what save_workflow.py needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from host_page import read_layout, run_script, screenshot_path, serving  # noqa: E402 - tools/ is on the path only from here on
from hostrun.errors import run_command  # noqa: E402
from hostrun.paths import ROOT  # noqa: E402
from hostrun.server import HostServer  # noqa: E402
from hostrun.status import say  # noqa: E402

NAMES = ("FaithDiff Upscale",)
TEMPLATE = "faithdiff_upscale"
TEXTS = {
    "category": "FaithDiff",
    "description": "Restores and enlarges an image with FaithDiff: image, scale and prompt in, image out. Needs FaithDiff "
    "weights and an SDXL checkpoint, of which only the text encoders and the VAE are used.",
    "search_aliases": ["super resolution", "restore", "upscale", "enhance photo", "sharpen", "denoise", "deblur", "old photo"],
}
"""What the node library shows, and searches."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="save_blueprint.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help='blueprint to write, e.g. "subgraphs/FaithDiff Upscale.json"')
    options = parser.parse_args(arguments)
    return run_command(lambda: _save_one(options.out.absolute()))


def _save_one(out: Path) -> int:
    with serving([read_layout(layout_path(out))]) as server:
        return save(out, server)


def layout_path(out: Path) -> Path:
    """Where things stand in the template that the blueprint `out` is taken from."""
    return HERE / "layouts" / f"{TEMPLATE}.json"


def save(out: Path, server: HostServer) -> int:
    """Save the blueprint `out` through a server that has what its layout asks for; the script's exit code."""
    screenshot = screenshot_path(out)
    api = ROOT / "workflows" / "api" / f"{TEMPLATE}.json"
    job: dict[str, Any] = {"name": out.stem, "api": str(api), "layout": str(layout_path(out)), "out": str(out)}
    job |= {"screenshot": str(screenshot), "texts": TEXTS}
    code = run_script("save_blueprint.mjs", job, server)
    if code == 0:
        say(f"saved {out}\npicture {screenshot}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
