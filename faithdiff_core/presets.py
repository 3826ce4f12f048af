"""Settings for kinds of pictures, each departure from the release's with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple


class Why(NamedTuple):
    """Why a value is not the release's."""

    text: str
    measured: bool
    """On the nano model (docs/colours.md). It knows no prompt, so nothing about cfg can be."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults are the release's (official test.py). What stands between `when` and `why` are FaithDiff Preset's outputs."""

    when: str
    steps: int = 20
    cfg: float = 5.0
    denoise: float = 1.0
    noise_mode: str = "per image"
    add_quality: bool = False
    method: str = "adain"
    why: Mapping[str, Why] = field(default_factory=dict[str, Why])

    def values(self) -> dict[str, int | float | str | bool]:
        """What the node gives, by output."""
        return {name: getattr(self, name) for name in SETTINGS}


SETTINGS = tuple(f.name for f in fields(Preset) if f.name not in ("when", "why"))
"""Outputs of FaithDiff Preset but the last, by name."""

PRESETS: dict[str, Preset] = {
    "photo": Preset(when="Any photo that is small, blurred, noisy or compressed."),
    "old photo": Preset(
        when="A scan of an old print whose tint belongs to it.",
        cfg=3.0,
        why={"cfg": Why("Less is made up where the print shows little.", measured=False)},
    ),
    "faded photo": Preset(
        when="A colour print that has faded or turned yellow or red, and is to have its colours back.",
        cfg=3.0,
        method="neutral",
        why={
            "cfg": Why("Less is made up where the print shows little.", measured=False),
            "method": Why("The only one that takes the cast away; the others put it back.", measured=True),
        },
    ),
    "text and documents": Preset(
        when="Pages, signs, labels, screenshots.",
        steps=10,
        cfg=2.0,
        method="wavelet",
        why={
            "steps": Why("As near to the original as 20 steps, in half the time.", measured=True),
            "cfg": Why("Guidance sharpens letters that it only guesses.", measured=False),
            "method": Why("Paper and ink stay those of the scan in every place.", measured=True),
        },
    ),
    "faces": Preset(
        when="Portraits and groups, where people are to stay themselves.",
        cfg=3.5,
        why={"cfg": Why("Strong guidance pulls faces towards the model's own.", measured=False)},
    ),
    "illustration": Preset(
        when="Drawings, comics, paintings, logos.",
        cfg=4.0,
        method="wavelet",
        why={
            "cfg": Why("Less of a photo's texture on flat colour.", measured=False),
            "method": Why("Flat colours stay the picture's own in every place.", measured=False),
        },
    ),
    "film frame": Preset(
        when="Frames of a film, one after another or as a batch.",
        steps=10,
        cfg=3.0,
        noise_mode="shared",
        method="wavelet",
        why={
            "steps": Why("As near to the original as 20 steps, in half the time.", measured=True),
            "cfg": Why("What is made up differs from frame to frame.", measured=False),
            "noise_mode": Why("All frames start from the same noise, so fine detail flickers less.", measured=False),
            "method": Why("Colours follow the frame in every place; matched means would jump with what is seen.", measured=False),
        },
    ),
    "heavy damage": Preset(
        when="So small, blurred or noisy that detail has to be made up.",
        cfg=6.5,
        add_quality=True,
        why={
            "cfg": Why("The prompt has to say more than the photo does.", measured=False),
            "add_quality": Why("Pulls what is made up towards a clean picture.", measured=False),
        },
    ),
    "light touch": Preset(
        when="A good photo that is to be enlarged, and otherwise left alone.",
        cfg=2.0,
        denoise=0.5,
        method="wavelet",
        why={
            "cfg": Why("Little is to be made up.", measured=False),
            "denoise": Why("Starts nearer to the photo, so less is made up.", measured=False),
            "method": Why("Colours stay the photo's own in every place.", measured=True),
        },
    ),
}
"""By the name that the node shows. Names and the order are in people's workflows: add, do not rename."""


def about(name: str) -> list[str]:
    """A preset in lines of plain text: for what it is, and what it changes why."""
    preset = PRESETS[name]
    lines = [f"{name}: {preset.when}"]
    for setting, why in preset.why.items():
        lines.append(f"{setting} {shown(getattr(preset, setting))}: {why.text} ({'measured' if why.measured else 'reasoned'})")
    return [*lines, "Everything else as the release has it."]


def shown(value: object) -> str:
    """A setting as the nodes show it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
