"""Writes anew all that comes from templates.py and blueprints/; part of `make generated`.

    python3 tools/environment.py --with test --run tools/frontend/save_all.py

First API prompts and layouts, which need nothing. Then, in Chromium, what ComfyUI's front end saves: workflows/*.json and
subgraphs/*.json. Needs what save_workflow.py needs; without it the exit code is 2, and the files of the first part are written.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import save_blueprint  # noqa: E402 - these find tools/ only from here on
import save_workflow  # noqa: E402
from host_page import read_layout, serving  # noqa: E402
from hostrun.errors import run_command  # noqa: E402
from hostrun.paths import ROOT  # noqa: E402
from hostrun.status import say  # noqa: E402
from template_graph import write  # noqa: E402
from templates import TEMPLATES  # noqa: E402


def main() -> int:
    templates = [make() for make in TEMPLATES]
    for template in templates:
        write(template)
    say(f"{len(templates)} API prompts and layouts")
    return run_command(lambda: _save_graphs([template.name for template in templates]))


def _save_graphs(names: list[str]) -> int:
    """The largest exit code. One server has what all of them ask for."""
    workflows = [ROOT / "workflows" / f"{name}.json" for name in names]
    blueprints = [ROOT / "subgraphs" / path.name for path in sorted((HERE / "blueprints").glob("*.json"))]
    paths = [*map(save_workflow.layout_path, workflows), *map(save_blueprint.layout_path, blueprints)]
    with serving(map(read_layout, paths)) as server:
        codes = [save_workflow.save(out.parent / "api" / out.name, out, server) for out in workflows]
        codes += [save_blueprint.save(out, server) for out in blueprints]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
