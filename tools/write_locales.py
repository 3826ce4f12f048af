"""Writes what the nodes say in English, from their schemas, to locales/en/nodeDefs.json, which the other languages translate.

    environment.py --with test --run tools/write_locales.py      (needs COMFYUI_PATH, which environment.py sets)

The host serves locales/<language>/nodeDefs.json to its front end, which looks up `<node id>.inputs.<input>.name` and so on. A dot
in a name (a dependent input, "target.factor") becomes an underscore. Outputs go by their number.

locales/<language>/made_from.json, which the host does not read, notes of which English each translation was made, and so tells
translations whose English has changed since, as gettext's "fuzzy" does.
"""

from __future__ import annotations

import asyncio
import hashlib
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
MADE_FROM = "made_from.json"
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


def made_from(english: dict[str, Any], other: dict[str, Any], noted: dict[str, str]) -> dict[str, str]:
    """What made_from.json should say: by the key of a text, digests of its English and of its translation.

    A translation that is the one noted was made from the English noted, whatever the English is now. One that has changed, or was
    not noted, was made from today's.
    """
    sources, result = _texts_by_key(english), {}
    for key, text in _texts_by_key(other).items():
        if key in sources:
            now = f"{_digest(sources[key])} {_digest(text)}"
            was = noted.get(key, now)
            result[key] = was if was.endswith(_digest(text)) else now
    return result


def stale(english: dict[str, Any], noted: dict[str, str]) -> list[str]:
    """The keys of translations whose English has changed since they were made."""
    sources = _texts_by_key(english)
    return [key for key, digests in noted.items() if key in sources and digests.split()[0] != _digest(sources[key])]


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
    for path in sorted(LOCALES.glob(f"*/{FILE_NAME}")):
        if path.parent.name != "en":
            _report(path, english)
    return 0


def _report(path: Path, english: dict[str, Any]) -> None:
    """Says what a translation lacks and what is out of date in it, and notes what it was made from."""
    other, notes = json.loads(path.read_text(encoding="utf-8")), path.with_name(MADE_FROM)
    noted = made_from(english, other, json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {})
    notes.write_text(text_of(noted), encoding="utf-8", newline="\n")
    for key in different_keys(english, other):
        print(f"{path.relative_to(ROOT)}: to be translated or taken out: {key[1:]}")
    for key in stale(english, noted):
        print(f"{path.relative_to(ROOT)}: its English has changed: {key}")
        print(f"    translate it anew, or if it still fits, take its line out of {MADE_FROM}; then run this once more")


def _texts_by_key(texts: Any, where: str = "") -> dict[str, str]:
    """Every text by the names that lead to it: {"FaithDiffSampler.inputs.cfg.tooltip": "..."}."""
    if not isinstance(texts, dict):
        return {where[1:]: str(texts)}
    return {inner: text for key, part in texts.items() for inner, text in _texts_by_key(part, f"{where}.{key}").items()}


def _digest(text: str) -> str:
    """32 bits are enough to notice a change."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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
