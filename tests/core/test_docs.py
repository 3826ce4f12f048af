"""Every node has a help page; it names every input and output as the node shows them, has the same sections, and its pictures
are there and small."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from support.schemas import schema_fields

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
PICTURES = PAGES / "pictures"
# tests/host/test_locales.py holds these texts to the schemas.
SHOWN = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
SECTIONS = ("Inputs", "Outputs", "Recipes", "Mistakes people make")
MAX_BYTES_PER_PICTURE = 60_000
MAX_BYTES = 500_000
MAX_LINE = 300  # the help panel is narrow: a cell or paragraph of more is a wall of text there
MAX_CODE_IN_A_TABLE = 16  # code is not wrapped there, and the panel's 280 px cut it off (measured: Chromium)
PICTURE = re.compile(r"!\[([^\]\"]+)\]\(([^)\s]+)\)")


def page(node_id: str) -> str:
    return (PAGES / f"{node_id}.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_there_are_pages_for_exactly_the_nodes():
    nodes = {ast.literal_eval(fields["node_id"]) for fields in schema_fields()}
    assert {p.stem for p in PAGES.glob("*.md")} == nodes == set(SHOWN)
    assert len(nodes) >= 13


@pytest.mark.parametrize("node_id", SHOWN)
def test_page_names_the_node_and_every_input_and_output(node_id):
    text = page(node_id)
    assert text.startswith(f"# {SHOWN[node_id]['display_name']}\n")
    for title, key in (("Inputs", "inputs"), ("Outputs", "outputs")):
        names = [part["name"] for part in SHOWN[node_id][key].values()]
        listed = re.findall(r"^\| \*\*(\w+)\*\* \|", section(text, title), re.MULTILINE)
        assert sorted(listed) == sorted(names), title
        assert names or key == "outputs", title  # a node that saves has none


@pytest.mark.parametrize("node_id", SHOWN)
def test_page_has_the_sections_in_short_lines(node_id):
    text = page(node_id)
    assert [title for title in re.findall(r"^## (.+)$", text, re.MULTILINE) if title in SECTIONS] == list(SECTIONS)
    assert all(len(section(text, title).strip()) > 40 for title in SECTIONS)
    assert [line for line in text.splitlines() if len(line) > MAX_LINE] == []
    in_tables = re.findall(r"`([^`]+)`", "\n".join(line for line in text.splitlines() if line.startswith("|")))
    assert [code for code in in_tables if len(code) > MAX_CODE_IN_A_TABLE] == []


@pytest.mark.parametrize("node_id", SHOWN)
def test_page_has_a_picture_that_is_there(node_id):
    pictures = PICTURE.findall(page(node_id))
    assert pictures
    assert [path for _, path in pictures if not path.startswith("pictures/") or not (PAGES / path).is_file()] == []


def test_pictures_are_small_and_all_of_them_shown():
    shown = {path for node_id in SHOWN for _, path in PICTURE.findall(page(node_id))}
    files = sorted(PICTURES.iterdir())
    assert {f"pictures/{file.name}" for file in files} == shown
    sizes = {file.name: file.stat().st_size for file in files}
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES_PER_PICTURE} == {}
    assert sum(sizes.values()) < MAX_BYTES
