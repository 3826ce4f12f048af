"""The help page's table of presets is what the presets say."""

from __future__ import annotations

from pathlib import Path

from comfyui_faithdiff.faithdiff_core.presets import PRESETS, shown

PAGE = Path(__file__).resolve().parents[2] / "web" / "docs" / "FaithDiffPreset.md"


def table() -> str:
    """As it stands on the page: for each preset what it is for, then a row for each setting that it changes."""
    lines = ["| preset | setting | why |", "|---|---|---|"]
    for name, preset in PRESETS.items():
        lines.append(f"| **{name}** | | {preset.when} |")
        for setting, why in preset.why.items():
            basis = "Measured." if why.measured else "Reasoned."
            lines.append(f"| | {setting} {shown(getattr(preset, setting))} | {why.text} *{basis}* |")
    return "\n".join(lines)


def test_the_help_page_has_the_presets_table():
    """Where this fails, put what `table()` gives in place of the page's."""
    assert table() in PAGE.read_text(encoding="utf-8")
