"""What the nodes declare, read off the sources: no host needed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

NODES = Path(__file__).resolve().parents[2] / "nodes"


def schema_fields() -> Iterator[dict[str | None, ast.expr]]:
    """The arguments of every node's schema, as syntax trees."""
    for path in NODES.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Schema":
                yield {k.arg: k.value for k in call.keywords}
