"""Turns an API-format prompt into a UI-format workflow, saved by ComfyUI's own front end in a real browser. For developers.

    python3 tools/environment.py --run tools/frontend/save_workflow.py workflows/api/NAME.json workflows/NAME.json
    ... --pictures BEFORE AFTER        also writes the thumbnail workflows/NAME.jpg of the two pictures

Needs Node.js 20 or newer with npm, and Chromium (Debian: apt-get install nodejs npm chromium). Where things stand on the
canvas, groups, notes and model links come from tools/frontend/layouts/NAME.json. A picture goes to build/frontend/NAME.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from host_page import read_layout, run_script, screenshot_path, serving  # noqa: E402 - tools/ is on the path only from here on
from hostrun.errors import SetupError, run_command  # noqa: E402
from hostrun.server import HostServer  # noqa: E402
from hostrun.status import say  # noqa: E402
from thumbnail import write_thumbnail  # noqa: E402


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="save_workflow.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("api", type=Path, help="API-format prompt, e.g. workflows/api/faithdiff_upscale.json")
    parser.add_argument("out", type=Path, help="UI-format workflow to write, e.g. workflows/faithdiff_upscale.json")
    parser.add_argument(
        "--pictures", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="pictures to make the template's thumbnail of"
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: _save_one(options.api.absolute(), options.out.absolute(), options.pictures))


def _save_one(api: Path, out: Path, pictures: list[Path] | None) -> int:
    for path in (api, *(pictures or ())):
        if not path.is_file():
            raise SetupError(f"expected the file {path}, found none")
    with serving([read_layout(layout_path(out))]) as server:
        code = save(api, out, server)
    if code == 0 and pictures:
        before, after = pictures
        write_thumbnail(before, after, out.with_suffix(".jpg"))
        say(f"thumbnail {out.with_suffix('.jpg')}")
    return code


def layout_path(out: Path) -> Path:
    """Where things stand in the workflow `out`."""
    return HERE / "layouts" / f"{out.stem}.json"


def save(api: Path, out: Path, server: HostServer) -> int:
    """Save the workflow `out` of the prompt `api` through a server that has what its layout asks for; the script's exit code."""
    screenshot = screenshot_path(out)
    job = {"name": out.stem, "api": str(api), "layout": str(layout_path(out)), "out": str(out), "screenshot": str(screenshot)}
    code = run_script("save_workflow.mjs", job, server)
    if code == 0:
        say(f"saved {out}\npicture {screenshot}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
