"""The three rings and the rooms inside them: who may import what. Read off the sources, so that a lazy import inside a function
counts, too."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview", "nodes", "server"}
ALLOWED = {
    # huggingface_hub, and filelock, which it needs, are imported only where something is fetched (test_reach.py)
    "faithdiff_core": {"torch", "numpy", "safetensors", "PIL", "av", "huggingface_hub", "filelock"},
    "nodes": {"torch", "numpy"} | HOST,
}

ROOMS = {
    "faithdiff_core": {
        ".": "colors files",
        "files": "",
        "colors": "",
        "fidelity": ". colors",
        "fidelity_decoder": ". files",
        "hub": "files",
        "listing": "photo",
        "photo": "",
        "tiled_encoder": ".",
    },
    "nodes": {
        ".": "alignment attribution_maps decoding folder photos planning reporting seam tiles weights",  # one file a node
        "seam": "",
        "alignment": "seam",
        "attribution_maps": "seam",
        "decoding": "seam",
        "tiles": "alignment seam",
        "photos": "seam",
        "folder": "photos seam",
        "planning": "alignment seam tiles",
        "reporting": "tiles",
        "weights": "seam",
    },
    "training": {
        ".": "commands common",  # cli.py, __main__.py
        "common": "",
        "config": "common",
        "data": "common",
        "degradation": "common",
        "folder": "common",
        "metrics": "common",
        "reports": "",
        "reading": "common reports",
        "model": "common config",
        "batches": "common config data degradation model",
        "optim": "common config",
        "loop": "common config optim",
        "tasks": "batches common config data degradation loop metrics model optim reports",
        "weights": "batches common config loop model",
        "stages": "batches common config data loop metrics model optim tasks weights",
        "evaluate": "common metrics reading reports",
        "study": "common config data degradation evaluate model reading reports stages tasks weights",
        "decoder_study": "common metrics model reading reports study weights",
        "commands": "common config data decoder_study degradation evaluate folder metrics model reading stages study weights",
    },
}
"""Room -> the other rooms of its ring that its files import; "." is what lies at the ring's top."""
MAPPED_PICKLE = 'torch.load(source, map_location="cpu", weights_only=True, mmap='
"""How one file in the core reads FaithDiff.bin: the host's reader would take 10 GB of memory for it."""
WORD_START = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
MIN_FILES, MAX_FILES = 3, 11
"""In a room, its `__init__` not counted. A room with more than these is two rooms."""


def imports(path: Path):
    """(relative level, dotted module) of every import in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder} has no sources: this test would hold nothing"
    return found


def is_stdlib(name: str) -> bool:
    import sys

    return name.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("ring", ALLOWED)
def test_pack_imports_only_what_its_ring_may(ring):
    for path in sources(ring):
        depth = len(path.relative_to(ROOT / ring).parts)  # levels that stay inside the ring
        for level, module in imports(path):
            top = module.split(".")[0]
            if level == 0:
                assert is_stdlib(top) or top in ALLOWED[ring], f"{path}: {ring} must not import {module}"
            elif level > depth:
                assert ring == "nodes" and level == depth + 1 and top == "faithdiff_core", (
                    f"{path}: {ring} reaches for {'.' * level}{module}"
                )


def test_training_never_sees_nodes_or_host():
    for path in sources("training"):
        depth = len(path.relative_to(ROOT / "training").parts)
        for level, module in imports(path):
            top = module.split(".")[0]
            assert level <= depth, f"{path}: relative import out of training"
            assert level > 0 or top not in HOST, f"{path}: training must not import {module}"


def test_root_init_only_names_things():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert all(isinstance(n, ast.Expr | ast.ImportFrom | ast.Assign) for n in tree.body)
    assert [(level, module) for level, module in imports(ROOT / "__init__.py")] == [(1, "nodes")]


def test_nodes_leave_devices_and_gradients_to_the_host():
    forbidden = (
        ".cuda(",
        'to("cuda',
        "torch.autocast",
        "torch.no_grad",
        "torch.load(",
        "empty_cache(",
        "nn.Linear(",
        "nn.Conv2d(",
        "eval(",
    )
    for ring in ALLOWED:
        for path in sources(ring):
            text = path.read_text(encoding="utf-8").replace(".eval(", "").replace("mm.soft_empty_cache(", "")
            text = text.replace(MAPPED_PICKLE, "") if path.parent.name == "hub" else text
            assert text.isascii(), f"{path}: sources are ASCII, for consoles that are not UTF-8"
            for word in forbidden:
                assert word not in text, f"{path}: {word}"


def room_of(ring: str, parts: tuple[str, ...]) -> str:
    """The room that a file (its path below the ring, split) or a module (its dotted name there, split) lies in."""
    return parts[0] if (ROOT / ring / parts[0]).is_dir() else "."


def inner_imports(ring: str, path: Path):
    """(line, what is imported from, split, without the ring's name) of every import of the same ring."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            base = package[: len(package) - node.level + 1] if node.level else ()
            targets = [(*base, *module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == ring and len(target) > 1 and (ring != "nodes" or not isinstance(node, ast.Import)):
                yield node.lineno, target[1:]


@pytest.mark.parametrize("ring", ROOMS)
def test_rooms_import_what_the_table_says_and_nothing_else(ring: str) -> None:
    found: dict[str, set[str]] = {room: set() for room in ROOMS[ring]}
    for path in sources(ring):
        here = room_of(ring, path.relative_to(ROOT / ring).parts)
        assert here in found, f"{path}: the table has no room {here}"
        for line, target in inner_imports(ring, path):
            there = room_of(ring, target)
            if there != here:
                assert there in ROOMS[ring][here].split(), f"{path}:{line}: {here} must not import {there}"
                found[here].add(there)
    assert {room: " ".join(sorted(others)) for room, others in found.items()} == ROOMS[ring], "an edge that nothing uses"


def test_architecture_has_the_same_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)/(\w*)/?` \|.*\| (.+) \|$", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = {ring: {room if room != "." else "": others for room, others in rooms.items()} for ring, rooms in ROOMS.items()}
    found: dict[str, dict[str, str]] = {ring: {} for ring in ROOMS}
    for ring, room, others in rows:
        found[ring][room] = " ".join({"nothing": "", "top": "."}.get(other, other) for other in others.split())
    assert found == wanted


@pytest.mark.parametrize("ring", ROOMS)
def test_no_circle_between_rooms(ring: str) -> None:
    assert list(TopologicalSorter({room: others.split() for room, others in ROOMS[ring].items()}).static_order())


@pytest.mark.parametrize("ring", ROOMS)
def test_a_room_has_a_few_files_and_one_sentence(ring: str) -> None:
    for room in set(ROOMS[ring]) - {"."}:
        folder = ROOT / ring / room
        count = len(list(folder.glob("*.py"))) - 1
        assert MIN_FILES <= count <= MAX_FILES, f"{folder}: {count} files"
        assert not [path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"], f"{folder} has rooms"
        body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{folder}: __init__ is a docstring and no code"


def test_a_file_at_the_top_of_nodes_is_one_node() -> None:
    for path in (ROOT / "nodes").glob("*.py"):
        classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
        names = [WORD_START.sub("_", node.name.removeprefix("FaithDiff")).lower() for node in classes]
        assert path.name == "__init__.py" or names == [path.stem], f"{path}: {names}"


def test_only_commands_print_and_know_argparse() -> None:
    for path in sources("training"):
        if path.relative_to(ROOT / "training").parts[0] in ("commands", "cli.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert "argparse" not in {module for _, module in imports(path)}, f"{path}: argparse belongs to commands"
        calls = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"]
        assert calls == [], f"{path}:{calls}: only commands print"
