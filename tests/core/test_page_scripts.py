"""The scripts that ComfyUI's page loads from web/: small, whole, and without a way to anywhere but the page's own server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
SCRIPTS = sorted(WEB.rglob("*.js"))
MAX_LINES = 200
# web/ is served as /extensions/<name of the pack>/, and the front end's own modules as /scripts/.
HOST_SCRIPTS = {"scripts/app.js", "scripts/api.js"}
IMPORT = re.compile(r"^import .*?'([^']+)'$", re.MULTILINE)
REACHES = re.compile(
    r"https?:|\beval\b|new Function|\bimport\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|XMLHttpRequest|WebSocket"
    r"|localStorage|sessionStorage|document\.cookie|postMessage|navigator\.sendBeacon"
)


def test_there_are_some():
    assert SCRIPTS


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(WEB).as_posix())
def test_a_script_is_small_and_its_imports_are_there(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for name in IMPORT.findall(text):
        assert name.startswith("."), f"{name}: the page knows no other modules"
        target = (Path("extensions/pack") / path.relative_to(WEB).parent / name).as_posix()
        parts: list[str] = []
        for part in target.split("/"):
            parts = parts[:-1] if part == ".." else parts if part == "." else [*parts, part]
        address = "/".join(parts)
        assert address in HOST_SCRIPTS or (WEB / address.removeprefix("extensions/pack/")).is_file(), address


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(WEB).as_posix())
def test_a_script_reaches_nothing_but_the_page(path):
    assert REACHES.findall(path.read_text(encoding="utf-8")) == []


def test_style_sheets_fetch_nothing():
    sheets = sorted(WEB.rglob("*.css"))
    assert [sheet.name for sheet in sheets if re.search(r"url\(|@import", sheet.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "line", ["fetch('https://x.y')", "eval(text)", "a.innerHTML = b", "await import(name)", "new WebSocket(a)"]
)
def test_the_scan_sees(line):
    assert REACHES.search(line)
