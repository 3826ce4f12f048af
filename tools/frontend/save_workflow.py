"""Turns an API-format prompt into a UI-format workflow, saved by ComfyUI's own front end in a real browser. For developers.

    python3 tools/environment.py --run tools/frontend/save_workflow.py workflows/api/NAME.json workflows/NAME.json
    ... --pictures BEFORE AFTER        also writes the thumbnail workflows/NAME.jpg of the two pictures

Needs Node.js 20 or newer with npm, and Chromium (Debian: apt-get install nodejs npm chromium). Where things stand on the
canvas, groups, notes and model links come from tools/frontend/layouts/NAME.json. A picture goes to build/frontend/NAME.png.
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
from thumbnail import write_thumbnail  # noqa: E402


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="save_workflow.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("api", type=Path, help="API-format prompt, e.g. workflows/api/faithdiff_upscale.json")
    parser.add_argument("out", type=Path, help="UI-format workflow to write, e.g. workflows/faithdiff_upscale.json")
    parser.add_argument(
        "--pictures", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="pictures to make the template's thumbnail of"
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: save(options.api.absolute(), options.out.absolute(), options.pictures))


def save(api: Path, out: Path, pictures: list[Path] | None = None) -> int:
    """Save the workflow `out` of the prompt `api`; the exit code of the script in the browser.

    Args:
        pictures: before and after, for a thumbnail.

    Raises:
        SetupError: no such prompt, layout or picture, or no browser.
    """
    layout = HERE / "layouts" / f"{out.stem}.json"
    for path in (api, layout, *(pictures or ())):
        if not path.is_file():
            raise SetupError(f"expected the file {path}, found none")
    screenshot = BUILD / "frontend" / f"{out.stem}.png"
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    job = {"api": str(api), "layout": str(layout), "out": str(out), "screenshot": str(screenshot)}
    code = run_script("save_workflow.mjs", job, json.loads(layout.read_text(encoding="utf-8")))
    if code == 0:
        say(f"saved {out}\npicture {screenshot}")
        if pictures:
            before, after = pictures
            write_thumbnail(before, after, out.with_suffix(".jpg"))
            say(f"thumbnail {out.with_suffix('.jpg')}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
