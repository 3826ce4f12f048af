"""Writes what the nodes say in English, from their schemas, to locales/en/nodeDefs.json, which the other languages translate.

    environment.py --with test --run tools/write_locales.py      (needs COMFYUI_PATH, which environment.py sets)

The host serves locales/<language>/nodeDefs.json to its front end, which looks up `<node id>.inputs.<input>.name` and so on. A dot
in a name (a dependent input, "target.factor") becomes an underscore. Outputs go by their number.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCALES = ROOT / "locales"
FILE_NAME = "nodeDefs.json"
ALIAS = "comfyui_faithdiff"


def definitions(nodes: list[Any]) -> dict[str, Any]:
    """The texts of node classes, in their order, as nodeDefs.json has them."""
    return {schema.node_id: _definition(schema) for schema in (node.define_schema() for node in nodes)}


def different_keys(english: Any, other: Any, where: str = "") -> list[str]:
    """The places where a translation says less or more than the English text, or says nothing."""
    if not isinstance(english, dict):
        return [] if isinstance(other, str) and other.strip() else [where]
    if not isinstance(other, dict):
        return [where]
    missing = [f"{where}.{key}" for key in english.keys() ^ other.keys()]
    return sorted(
        missing + [p for k in english.keys() & other.keys() for p in different_keys(english[k], other[k], f"{where}.{k}")]
    )


def text_of(definition: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(definition, ensure_ascii=False, indent=2) + "\n"


def main() -> int:
    nodes = asyncio.run(_nodes_of_the_pack())
    path = LOCALES / "en" / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    english = definitions(nodes)
    path.write_text(text_of(english), encoding="utf-8", newline="\n")
    print(f"{path.relative_to(ROOT)}: {len(nodes)} nodes")
    for other in sorted(LOCALES.glob(f"*/{FILE_NAME}")):
        for place in different_keys(english, json.loads(other.read_text(encoding="utf-8"))):
            print(f"{other.relative_to(ROOT)}: to be translated or taken out: {place[1:]}")
    return 0


def _definition(schema: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for part in schema.inputs:
        inputs[part.id] = _texts(part, part.id)
        for option in getattr(part, "options", None) or []:
            for dependent in getattr(option, "inputs", []):
                inputs[f"{part.id}_{dependent.id}"] = _texts(dependent, dependent.id)
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": inputs,
        "outputs": {str(i): _texts(part, part.io_type) for i, part in enumerate(schema.outputs)},
    }


def _texts(part: Any, name: str) -> dict[str, str]:
    return {"name": part.display_name or name, "tooltip": part.tooltip}


async def _nodes_of_the_pack() -> list[Any]:
    """As the host loads them, but without its server. The root must not be on the path: our nodes/ would shadow the host's."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    host_args = importlib.import_module("comfy.cli_args").args
    host_args.cpu = True  # before any other part of the host
    package = types.ModuleType(ALIAS)
    package.__path__ = [str(ROOT)]
    sys.modules[ALIAS] = package
    extension = await importlib.import_module(f"{ALIAS}.nodes").comfy_entrypoint()
    return await extension.get_node_list()


if __name__ == "__main__":
    sys.exit(main())
