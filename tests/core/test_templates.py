"""The templates' API prompts and layouts are those that tools/frontend/templates.py writes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRONTEND = ROOT / "tools" / "frontend"


@pytest.fixture(scope="module")
def templates():
    sys.path.append(str(FRONTEND))
    try:
        layout = importlib.import_module("template_layout").layout
        return [(made, layout(made)) for make in importlib.import_module("templates").TEMPLATES for made in [make()]]
    finally:
        sys.path.remove(str(FRONTEND))


def test_files_are_what_the_templates_say(templates):
    assert {template.name for template, _ in templates} == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    for template, layout in templates:
        for path, wanted in (
            (ROOT / "workflows" / "api" / f"{template.name}.json", template.api()),
            (FRONTEND / "layouts" / f"{template.name}.json", layout),
        ):
            found = json.loads(path.read_text(encoding="utf-8"))
            assert found == json.loads(json.dumps(wanted)), f"{path.name}: run tools/frontend/templates.py, then save_workflow.py"
