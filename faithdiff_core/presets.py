"""Settings for kinds of pictures, each departure from the release's with its reason. Node, help page and tests take them from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple


class Why(NamedTuple):
    """Why a value is not the release's."""

    text: str
    measured: bool
    """On the nano model (docs/colours.md, docs/presets.md). It knows no prompt, so nothing about cfg can be measured with it."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults are the release's (official test.py:24-41); the fields after `when` are outputs of FaithDiff Preset, in this order."""

    when: str
    steps: int = 20
    cfg: float = 5.0
    denoise: float = 1.0
    noise_mode: str = "per image"
    strength: float = 1.0
    end_percent: float = 1.0
    add_quality: bool = False
    method: str = "adain"
    why: Mapping[str, Why] = field(default_factory=dict[str, Why])

    def values(self) -> dict[str, int | float | str | bool]:
        """What the node gives, by output."""
        return {name: getattr(self, name) for name in SETTINGS}


SETTINGS = tuple(f.name for f in fields(Preset) if f.name not in ("when", "why"))
