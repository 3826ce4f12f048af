"""A workflow template as written down: nodes in columns of groups in rows, a note, and the models it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BLUE, GREEN, PURPLE = "#3f789e", "#8A8", "#a1309b"
Link = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node.

    Attributes:
        kind: its class in the host.
        title: on the canvas.
        inputs: by name; a link is (name of another node here, number of its output).
        height: on the canvas; 0 = as all of its kind.
    """

    kind: str
    title: str
    inputs: dict[str, Any]
    height: int = 0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An input of a node inside a subgraph that is shown on the subgraph itself.

    Attributes:
        node: its name inside.
        input: of that node.
        label: on the subgraph, and the name there.
    """

    node: str
    input: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """Nodes that stand on the canvas as one; its icon opens them.

    Attributes:
        title: on the canvas.
        groups: what is inside, in reading order.
        shown: inputs on the outside, from above.
        height: on the canvas.
    """

    title: str
    groups: tuple[Group, ...]
    shown: tuple[Shown, ...]
    height: int


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
    columns: tuple[Mapping[str, Node | Subgraph], ...]
    row: int = 1

    def names(self) -> list[str]:
        return [name for column in self.columns for name in column]


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
        """Those inside subgraphs, too, where these stand."""
        return dict(flat(self.groups))

    def subgraphs(self) -> dict[str, Subgraph]:
        parts = [part for group in self.groups for column in group.columns for part in column.items()]
        return {name: part for name, part in parts if isinstance(part, Subgraph)}

    def numbers(self) -> dict[str, str]:
        """The number of each node in the files; a subgraph has its name."""
        numbers = {name: str(i) for i, name in enumerate(self.nodes(), start=1)}
        return numbers | {name: name for name in self.subgraphs()}

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


def flat(groups: tuple[Group, ...]) -> Iterator[tuple[str, Node]]:
    """The nodes in reading order, by their names."""
    for group in groups:
        for column in group.columns:
            for name, part in column.items():
                if isinstance(part, Subgraph):
                    yield from flat(part.groups)
                else:
                    yield name, part
