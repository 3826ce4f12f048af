"""Writes anew all that comes from templates.py; part of `make generated`.

    python3 tools/environment.py --with test --run tools/frontend/save_all.py

First API prompts and layouts, which need nothing. Then, in Chromium, what ComfyUI's front end saves: workflows/*.json and
subgraphs/*.json. Needs what save_workflow.py needs; without it the exit code is 2, and the files of the first part are written.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import save_blueprint  # noqa: E402 - these find tools/ only from here on
import save_workflow  # noqa: E402
from host_page import find_browser, read_layout, serving  # noqa: E402
from hostrun.errors import SetupError, run_command  # noqa: E402
from hostrun.paths import ROOT  # noqa: E402
from hostrun.status import minutes, say  # noqa: E402
from template_files import write  # noqa: E402
from templates import TEMPLATES  # noqa: E402

API = ROOT / "workflows" / "api"
EXPECTED = "some minutes"
"""Measured: 7 on two cores with three other programs at work, 10 graphs."""


def main() -> int:
    templates = [make() for make in TEMPLATES]
    for template in templates:
        write(template)
    say(f"{len(templates)} API prompts and layouts")
    workflows = [ROOT / "workflows" / f"{template.name}.json" for template in templates]
    blueprints = [ROOT / "subgraphs" / f"{name}.json" for name in save_blueprint.NAMES]
    return run_command(lambda: _save_graphs(workflows, blueprints))


def _save_graphs(workflows: list[Path], blueprints: list[Path]) -> int:
    """The largest exit code. One server has what all of them ask for.

    Raises:
        SetupError: no browser; nothing was touched, and the message says what still is as it was.
    """
    count = len(workflows) + len(blueprints)
    try:
        find_browser()
    except SetupError as error:
        left = f"{len(workflows)} workflows (workflows/*.json) and {len(blueprints)} blueprint (subgraphs/*.json)"
        raise SetupError(f"{error}; left as they were: {left}") from None
    paths = [*map(save_workflow.layout_path, workflows), *map(save_blueprint.layout_path, blueprints)]
    started = time.monotonic()
    say(f"{count} graphs through ComfyUI's front end in Chromium: {EXPECTED}")
    with serving(map(read_layout, paths)) as server:
        codes = []
        for number, out in enumerate([*workflows, *blueprints], start=1):
            say(f"{number} of {count}, after {minutes(time.monotonic() - started)}: {out.relative_to(ROOT)}")
            saved = save_blueprint.save(out, server) if out in blueprints else save_workflow.save(API / out.name, out, server)
            codes.append(saved)
    failed = [out.name for out, code in zip([*workflows, *blueprints], codes, strict=True) if code]
    say(f"{count - len(failed)} of {count} made anew" + (f"; as they were: {', '.join(failed)}" if failed else ""))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
