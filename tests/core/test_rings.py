"""The three rings: who may import what. Read off the sources, so that a lazy import inside a function counts, too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview", "nodes", "server"}
TRAINER = {"accelerate", "diffusers", "kornia", "peft", "tensorboard", "transformers"}
ALLOWED = {
    "faithdiff_core": {"torch", "numpy", "safetensors"},
    "nodes": {"torch", "numpy"} | HOST,
}


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
            assert text.isascii(), f"{path}: sources are ASCII, for consoles that are not UTF-8"
            for word in forbidden:
                assert word not in text, f"{path}: {word}"
