"""Turns a template into the API-format prompt and the layout from which save_workflow.py makes the front end's file."""

from __future__ import annotations

import json
from pathlib import Path

from template_graph import Template
from template_layout import layout

ROOT = Path(__file__).resolve().parents[2]


def write(template: Template) -> None:
    for path, content in (
        (ROOT / "workflows" / "api" / f"{template.name}.json", template.api()),
        (Path(__file__).resolve().parent / "layouts" / f"{template.name}.json", layout(template)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
