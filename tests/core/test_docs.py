"""Every node has a help page, and the page names every input."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.schemas import schema_fields

ROOT = Path(__file__).resolve().parents[2]


def schemas():
    """{node id: input names}, read off the sources."""
    found = {}
    for fields in schema_fields():
        inputs = fields["inputs"]
        assert isinstance(inputs, ast.List)
        found[ast.literal_eval(fields["node_id"])] = [ast.literal_eval(i.args[0]) for i in inputs.elts if isinstance(i, ast.Call)]
    return found


def test_there_are_pages_for_exactly_the_nodes():
    assert {p.stem for p in (ROOT / "web" / "docs").glob("*.md")} == set(schemas())
    assert len(schemas()) >= 7


@pytest.mark.parametrize("node_id", ["FaithDiffLoadModel", "FaithDiffEncodeLQ", "FaithDiffAlignLatent", "FaithDiffColorFix"])
def test_page_names_every_input(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert [name for name in schemas()[node_id] if f"**{name}**" not in page] == []
