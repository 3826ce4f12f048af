"""The help pages, as the front end shows them beside a node."""

from __future__ import annotations

import re

import pytest
from support.tiers import all_long_but
from support.workflows import ROOT

pytestmark = pytest.mark.host
PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))


@pytest.mark.parametrize("node_id", all_long_but([page.stem for page in PAGES], "FaithDiffSampler"))
def test_help_opens(frontend, node_id):
    shown = frontend.ask("helpOf", type=node_id)
    frontend.photograph(f"help_{node_id}")
    page = ROOT / "web" / "docs" / f"{node_id}.md"
    title, *rest = page.read_text(encoding="utf-8").splitlines()
    assert shown["title"] == title.removeprefix("# ")
    assert shown["broken"] == []
    # A sentence of the page's own: where there is none, the front end makes a page of the tooltips.
    words = set(re.findall(r"[A-Za-z]{4,}", " ".join(rest)))
    assert words <= set(re.findall(r"[A-Za-z]{4,}", shown["text"])) | _unseen(rest)


def _unseen(lines):
    """Words of addresses and code fences' languages, which a page does not show."""
    hidden = re.findall(r"\]\([^)]*\)|^```\w*|<[^>]+>", "\n".join(lines), flags=re.MULTILINE)
    alt = re.findall(r"!\[([^\]]*)\]", "\n".join(lines))
    return set(re.findall(r"[A-Za-z]{4,}", " ".join(hidden + alt)))
