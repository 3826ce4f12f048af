"""Where the nodes of a workflow template stand: sizes, places, frames."""

from __future__ import annotations

import math
import re
from typing import Any

from template_graph import Group, Node, Subgraph, Template, flat

MAX_WIDTH, MAX_HEIGHT = 1980, 1230
"""Canvas units for the whole graph. The front end opens a template at 0.75 times the zoom that would fill its window (1.47,
fitToBounds): in one of 1600 x 1000 px, 2000 x 1250 units come to 60 %, where texts are drawn. 10 on each side are its own."""
TITLE_BAR = 30
"""Above a node's own place; so high in the front end."""
NODE_GAP = TITLE_BAR + 12
COLUMN_GAP = 30
GROUP_GAP = 60
"""Between nodes of two groups: their frames reach 20 beyond the nodes (in_page.js)."""
GROUP_TITLE = 34
"""Of a group's frame, above the title bars: 24, the size of its letters, times 1.4 in the front end."""
ROW_GAP = GROUP_GAP + GROUP_TITLE + TITLE_BAR
NOTE_WIDTH = 320
NOTE_LETTERS, NOTE_LINE = 46, 20
"""Letters in a line of a note of that width, and the height of a line (measured in Nodes 2.0, where they are larger)."""
WIDTHS = {
    "FaithDiffLoadPhoto": 300, "FaithDiffLoadFolder": 300, "FaithDiffSaveFolder": 560, "LoadVideo": 300,
    "FaithDiffSavePhoto": 560, "SaveVideo": 420, "FaithDiffCompare": 560,
}  # fmt: skip
SUBGRAPH_WIDTH = 340
DEFAULT_WIDTH = 270
"""The front end's own width of a new node."""
HEIGHTS = {
    "FaithDiffLoadPhoto": 430, "FaithDiffLoadFolder": 480, "FaithDiffSaveFolder": 440,
    "FaithDiffUpscale": 154, "FaithDiffLoadModel": 130, "FaithDiffEncodeLQ": 126,
    "FaithDiffAlignLatent": 198, "FaithDiffPrompt": 222, "FaithDiffSampler": 358, "FaithDiffPlan": 300, "FaithDiffColorFix": 106,
    "FaithDiffSavePhoto": 440, "FaithDiffLoadNanoVAE": 86, "FaithDiffNoPrompt": 58, "FaithDiffPreset": 330,
    "CheckpointLoaderSimple": 102, "LoraLoaderModelOnly": 86, "ControlNetLoader": 62, "ControlNetApplyAdvanced": 198,
    "LoadVideo": 306, "GetVideoComponents": 94, "CreateVideo": 110, "SaveVideo": 420, "FaithDiffDecode": 178,
    "FaithDiffCompare": 450, "LoadImage": 330, "SolidMask": 118, "MaskComposite": 138,
}  # fmt: skip
"""What a node takes in Nodes 2.0, which is more than in the older mode (measured in 1.47); more for those that show a picture or,
once they have run, a line of text."""
Place = tuple[int, int, int, int]
"""Left, top, width and height."""


def layout(template: Template) -> dict[str, Any]:
    """Where everything stands, and what the front end cannot know."""
    numbers = template.numbers()
    note = {"note": (0, 0, NOTE_WIDTH, _note_height(template.note))}
    placed = _placed(template.groups, NOTE_WIDTH + GROUP_GAP)
    places = note | {numbers[name]: place for name, place in placed.items()}
    right, bottom = _extent(places)
    assert right <= MAX_WIDTH and bottom + TITLE_BAR <= MAX_HEIGHT, f"{template.name}: {right} x {bottom + TITLE_BAR}"
    subgraphs = template.subgraphs()
    for part in subgraphs.values():
        places |= {numbers[name]: place for name, place in _placed(part.groups, 0).items()}
    models = {m.name: {"name": m.name, "url": m.url, "directory": m.directory} for m in template.models}
    layout: dict[str, Any] = {"viewport": {"width": 2000, "height": 1250}, "groups": _frames(template.groups, numbers)}
    layout["subgraphs"] = {name: _folded(part, numbers) for name, part in subgraphs.items()}
    layout["nodes"] = {name: list(place) for name, place in places.items()}
    layout["notes"] = {"note": {"title": "How to use this", "text": list(template.note)}}
    layout |= {"models": models, "photos": list(template.photos)}
    if template.made:
        layout["made"] = {m.name: m.directory for m in template.made}
    return layout


def _frames(groups: tuple[Group, ...], numbers: dict[str, str]) -> list[dict[str, Any]]:
    return [{"title": g.title, "color": g.color, "nodes": [numbers[name] for name in g.names()]} for g in groups]


def _folded(part: Subgraph, numbers: dict[str, str]) -> dict[str, Any]:
    """What the front end needs to make one node of what is inside."""
    shown = [{"node": numbers[show.node], "input": show.input, "label": show.label} for show in part.shown]
    inside = [numbers[name] for name, _ in flat(part.groups)]
    return {"title": part.title, "nodes": inside, "groups": _frames(part.groups, numbers), "shown": shown}


def _placed(groups: tuple[Group, ...], left: int) -> dict[str, Place]:
    """Of all nodes of the groups, in rows from above."""
    places: dict[str, Place] = {}
    top = 0
    for row in sorted({group.row for group in groups}):
        places |= _row([group for group in groups if group.row == row], left, top)
        top = _extent(places)[1] + ROW_GAP
    return places


def _extent(places: dict[str, Place]) -> tuple[int, int]:
    """The right and the lower edge."""
    right, bottom = (max(place[i] + place[i + 2] for place in places.values()) for i in (0, 1))
    return right, bottom


def _row(groups: list[Group], left: int, top: int) -> dict[str, Place]:
    """Of the nodes of the groups of one row."""
    places: dict[str, Place] = {}
    for group in groups:
        for column in group.columns:
            below = top
            for name, part in column.items():
                places[name] = (left, below, *_size(part))
                below += places[name][3] + NODE_GAP
            left += max(places[name][2] for name in column) + COLUMN_GAP
        left += GROUP_GAP - COLUMN_GAP
    return places


def _size(part: Node | Subgraph) -> tuple[int, int]:
    """Width and height."""
    if isinstance(part, Subgraph):
        return SUBGRAPH_WIDTH, part.height
    return WIDTHS.get(part.kind, DEFAULT_WIDTH), part.height or HEIGHTS[part.kind]


def _note_height(note: tuple[str, ...]) -> int:
    """Of a note that shows all of its text; a link's address is not shown."""
    shown = [re.sub(r"\]\([^)]*\)", "", line) for line in note]
    return NOTE_LINE * (2 + sum(max(1, math.ceil(len(line) / NOTE_LETTERS)) for line in shown))
