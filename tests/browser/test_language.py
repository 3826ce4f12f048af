"""The labels of the nodes in the languages of locales/."""

from __future__ import annotations

import json

import pytest
from support.tiers import all_long_but
from support.workflows import ROOT

pytestmark = pytest.mark.host


@pytest.fixture(scope="module", autouse=True)
def back_to_english(frontend):
    yield
    frontend.ask("setLanguage", code="en")


# Front end 1.47 has no German to choose, though the host serves ours.
LANGUAGES = sorted({path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json")} - {"de"})


@pytest.mark.parametrize("language", all_long_but(LANGUAGES, "zh"))
def test_a_language_changes_the_labels(frontend, language):
    wanted = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    frontend.ask("setLanguage", code=language)
    shown = frontend.ask("labels", types=list(wanted))
    for node_id, entry in wanted.items():
        assert shown[node_id]["title"] == entry["display_name"]
        for name, texts in entry.get("inputs", {}).items():
            label = shown[node_id]["inputs"].get(name.replace("_", ".", 1), shown[node_id]["inputs"].get(name))
            assert label in (None, texts["name"]), f"{node_id} {name}"  # None: a choice's own input, while another is chosen
