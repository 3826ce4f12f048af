"""A workflow template as written down: nodes with their place in a column of a group, a note, and the models it needs.

`write` turns it into the API-format prompt and the layout from which save_workflow.py makes the front end's file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COLUMN_GAP, ROW_GAP, GROUP_GAP = 60, 62, 40
"""Canvas units. A row's gap holds the title bar of the node below."""
NOTE_WIDTH = 420
WIDTHS = {"LoadImage": 330, "SaveImage": 420, "ImageCompare": 460, "CLIPTextEncode": 360, "VAEDecode": 200, "PreviewAny": 420}
HEIGHTS = {
    "LoadImage": 400, "SaveImage": 420, "ImageCompare": 420, "FaithDiffSampler": 400, "FaithDiffPrompt": 230,
    "FaithDiffPlan": 330, "FaithDiffAlignLatent": 210, "FaithDiffUpscale": 150, "FaithDiffEncodeLQ": 130,
    "FaithDiffLoadModel": 100,
    "CheckpointLoaderSimple": 100, "ControlNetApplyAdvanced": 190, "LoadVideo": 330, "SaveVideo": 420, "CreateVideo": 130,
    "VAEDecodeTiled": 180, "LoraLoaderModelOnly": 90, "ControlNetLoader": 60, "GetVideoComponents": 100, "PreviewAny": 200,
    "SolidMask": 130, "MaskComposite": 150,
}  # fmt: skip
"""Heights that the nodes themselves need are known to the front end only; these are a little more."""
DEFAULT_WIDTH, DEFAULT_HEIGHT = 340, 80
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
    """Nodes in columns from left to right; those of a column stand one under the other."""

    title: str
    color: str
    columns: tuple[dict[str, Node], ...]


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
        groups: from left to right.
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
        places: dict[str, list[int]] = {"note": [0, 0, NOTE_WIDTH, 90 + 26 * len(self.note)]}
        left = NOTE_WIDTH + 2 * COLUMN_GAP
        for group in self.groups:
            for column in group.columns:
                top = 0
                for name, node in column.items():
                    width, height = WIDTHS.get(node.kind, DEFAULT_WIDTH), HEIGHTS.get(node.kind, DEFAULT_HEIGHT)
                    places[numbers[name]] = [left, top, width, height]
                    top += height + ROW_GAP
                left += max(WIDTHS.get(node.kind, DEFAULT_WIDTH) for node in column.values()) + COLUMN_GAP
            left += GROUP_GAP
        groups = [
            {"title": g.title, "color": g.color, "nodes": [numbers[name] for column in g.columns for name in column]}
            for g in self.groups
        ]
        models = {m.name: {"name": m.name, "url": m.url, "directory": m.directory} for m in self.models}
        layout: dict[str, Any] = {"viewport": {"width": 2400, "height": 800}, "nodes": places, "groups": groups}
        layout["notes"] = {"note": {"title": "How to use this", "text": list(self.note)}}
        layout |= {"models": models, "photos": list(self.photos)}
        if self.made:
            layout["made"] = {m.name: m.directory for m in self.made}
        return layout


def write(template: Template) -> None:
    for path, content in (
        (ROOT / "workflows" / "api" / f"{template.name}.json", template.api()),
        (Path(__file__).resolve().parent / "layouts" / f"{template.name}.json", template.layout()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
