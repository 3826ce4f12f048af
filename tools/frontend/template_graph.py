"""A workflow template as written down: nodes with their place in a column of a group in a row, a note, and the models it needs.

`write` turns it into the API-format prompt and the layout from which save_workflow.py makes the front end's file.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
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
    "FaithDiffLoadPhoto": 300, "LoadVideo": 300, "FaithDiffSavePhoto": 420, "SaveVideo": 420, "ImageCompare": 480,
    "PreviewImage": 560,
}  # fmt: skip
DEFAULT_WIDTH = 270
"""The front end's own width of a new node."""
HEIGHTS = {
    "FaithDiffLoadPhoto": 430, "FaithDiffUpscale": 154, "FaithDiffLoadModel": 130, "FaithDiffEncodeLQ": 126,
    "FaithDiffAlignLatent": 198, "FaithDiffPrompt": 222, "FaithDiffSampler": 358, "FaithDiffPlan": 300, "FaithDiffColorFix": 106,
    "FaithDiffSavePhoto": 440, "FaithDiffLoadNanoVAE": 86, "FaithDiffNoPrompt": 58,
    "CheckpointLoaderSimple": 102, "LoraLoaderModelOnly": 86, "ControlNetLoader": 62, "ControlNetApplyAdvanced": 198,
    "LoadVideo": 306, "GetVideoComponents": 94, "CreateVideo": 110, "SaveVideo": 420, "VAEDecode": 54, "VAEDecodeTiled": 150,
    "ImageCompare": 440, "ImageStitch": 150, "PreviewImage": 440, "LoadImage": 330, "SolidMask": 118, "MaskComposite": 138,
}  # fmt: skip
"""What a node takes in Nodes 2.0, which is more than in the older mode (measured in 1.47); more for those that show a picture or,
once they have run, a line of text."""
BLUE, GREEN, PURPLE = "#3f789e", "#8A8", "#a1309b"
Link = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node.

    Attributes:
        kind: its class in the host.
        title: on the canvas.
        inputs: by name; a link is (name of another node here, number of its output).
    """

    kind: str
    title: str
    inputs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes in columns from left to right; those of a column stand one under the other.

    Attributes:
        title: on its frame.
        color: of its frame.
        columns: nodes by name.
        row: 1 for the upper row of groups, 2 for the one below.
    """

    title: str
    color: str
    columns: tuple[dict[str, Node], ...]
    row: int = 1


@dataclass(frozen=True, kw_only=True)
class Model:
    """A file that the workflow needs, for the front end's download."""

    name: str
    url: str
    directory: str


@dataclass(frozen=True, kw_only=True)
class Template:
    """A whole workflow.

    Attributes:
        name: of the files.
        note: Markdown, in lines.
        groups: in reading order.
        models: with links.
        made: weights that one makes oneself, by folder: stand-ins are needed for them, too.
        photos: pictures and videos that it loads.
    """

    name: str
    note: tuple[str, ...]
    groups: tuple[Group, ...]
    models: tuple[Model, ...] = ()
    made: tuple[Model, ...] = ()
    photos: tuple[str, ...] = ("example.png",)

    def nodes(self) -> dict[str, Node]:
        return {name: node for group in self.groups for column in group.columns for name, node in column.items()}

    def numbers(self) -> dict[str, str]:
        """The number of each node in the files."""
        return {name: str(i) for i, name in enumerate(self.nodes(), start=1)}

    def api(self) -> dict[str, Any]:
        """The prompt as the queue takes it."""
        numbers = self.numbers()

        def value(held: Any) -> Any:
            return [numbers[held[0]], held[1]] if isinstance(held, tuple) else held

        return {
            numbers[name]: {
                "class_type": node.kind,
                "inputs": {key: value(held) for key, held in node.inputs.items()},
                "_meta": {"title": node.title},
            }
            for name, node in self.nodes().items()
        }

    def layout(self) -> dict[str, Any]:
        """Where everything stands, and what the front end cannot know."""
        numbers = self.numbers()
        places: dict[str, tuple[int, int, int, int]] = {"note": (0, 0, NOTE_WIDTH, _note_height(self.note))}
        top = 0
        for row in sorted({group.row for group in self.groups}):
            placed = _row([group for group in self.groups if group.row == row], NOTE_WIDTH + GROUP_GAP, top)
            places |= {numbers[name]: place for name, place in placed.items()}
            top = max(place[1] + place[3] for place in placed.values()) + ROW_GAP
        right, bottom = (max(place[i] + place[i + 2] for place in places.values()) for i in (0, 1))
        assert right <= MAX_WIDTH and bottom + TITLE_BAR <= MAX_HEIGHT, f"{self.name}: {right} x {bottom + TITLE_BAR}"
        groups = [
            {"title": g.title, "color": g.color, "nodes": [numbers[name] for column in g.columns for name in column]}
            for g in self.groups
        ]
        models = {m.name: {"name": m.name, "url": m.url, "directory": m.directory} for m in self.models}
        layout: dict[str, Any] = {"viewport": {"width": 2000, "height": 1250}, "groups": groups}
        layout["nodes"] = {name: list(place) for name, place in places.items()}
        layout["notes"] = {"note": {"title": "How to use this", "text": list(self.note)}}
        layout |= {"models": models, "photos": list(self.photos)}
        if self.made:
            layout["made"] = {m.name: m.directory for m in self.made}
        return layout


def _row(groups: list[Group], left: int, top: int) -> dict[str, tuple[int, int, int, int]]:
    """Left, top, width and height of the nodes of the groups of one row."""
    places: dict[str, tuple[int, int, int, int]] = {}
    for group in groups:
        for column in group.columns:
            below = top
            for name, node in column.items():
                places[name] = (left, below, WIDTHS.get(node.kind, DEFAULT_WIDTH), HEIGHTS[node.kind])
                below += HEIGHTS[node.kind] + NODE_GAP
            left += max(places[name][2] for name in column) + COLUMN_GAP
        left += GROUP_GAP - COLUMN_GAP
    return places


def _note_height(note: tuple[str, ...]) -> int:
    """Of a note that shows all of its text; a link's address is not shown."""
    shown = [re.sub(r"\]\([^)]*\)", "", line) for line in note]
    return NOTE_LINE * (2 + sum(max(1, math.ceil(len(line) / NOTE_LETTERS)) for line in shown))


def write(template: Template) -> None:
    for path, content in (
        (ROOT / "workflows" / "api" / f"{template.name}.json", template.api()),
        (Path(__file__).resolve().parent / "layouts" / f"{template.name}.json", template.layout()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
