"""Saves a subgraph blueprint from ComfyUI's own front end in a real browser. For developers.

    python3 tools/environment.py --run tools/frontend/save_blueprint.py "subgraphs/FaithDiff Upscale.json"

What is in it comes from tools/frontend/blueprints/NAME.json: "prompt" in API format, the nodes that stay "outside", the
"widgets" to show on the subgraph, and the layout. A picture of the inside goes to build/frontend/NAME.png. Needs what
save_workflow.py needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from host_page import run_script  # noqa: E402 - tools/ is on the path only from here on
from hostrun.errors import SetupError, run_command  # noqa: E402
from hostrun.paths import BUILD  # noqa: E402
from hostrun.status import say  # noqa: E402


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="save_blueprint.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help='blueprint to write, e.g. "subgraphs/FaithDiff Upscale.json"')
    options = parser.parse_args(arguments)
    return run_command(lambda: save(options.out.absolute()))


def save(out: Path) -> int:
    """Save the blueprint `out`, from tools/frontend/blueprints/; the exit code of the script in the browser.

    Raises:
        SetupError: nothing of that name is written down, or no browser.
    """
    layout = HERE / "blueprints" / out.name
    if not layout.is_file():
        raise SetupError(f"expected the file {layout}, found none")
    screenshot = BUILD / "frontend" / f"{out.stem}.png"
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    job = {"name": out.stem, "layout": str(layout), "out": str(out), "screenshot": str(screenshot)}
    code = run_script("save_blueprint.mjs", job, json.loads(layout.read_text(encoding="utf-8")))
    if code == 0:
        say(f"saved {out}\npicture {screenshot}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
