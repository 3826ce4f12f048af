"""What SECURITY.md says that the nodes never do: network, processes, code from data, writing files. Read off the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODES = sorted((ROOT / "nodes").rglob("*.py"))
CORE = sorted((ROOT / "faithdiff_core").rglob("*.py"))
# Of the standard library, what cannot reach beyond the process.
HARMLESS = {
    "__future__", "collections", "contextlib", "copy", "dataclasses", "errno", "functools", "inspect", "io", "itertools", "json",
    "logging", "math", "os", "pathlib", "re", "sys", "time", "typing", "zipfile",
}  # fmt: skip
WRITER = "storage.py"  # weights as the trainer saves them; no node imports it
PICKLES = "pickle_check.py"  # names what a pickle asks for before the host's reader sees it, and never calls any of it
ALSO = {WRITER: {"shutil"}, PICKLES: {"pickle"}}
RUNS_CODE = {"eval", "exec", "__import__"}  # `compile` is re's, too
WRITES = {
    "chmod", "copyfile", "makedirs", "mkdir", "move", "remove", "removedirs", "rename", "rmdir", "rmtree", "save_file",
    "symlink_to", "touch", "unlink", "write_bytes", "write_text", "writestr", "extract", "extractall",
}  # fmt: skip
OS_REACHES = {"system", "popen", "fork", "execv", "execve", "spawnv", "posix_spawn", "startfile", "kill", "open", "putenv"}


def findings(tree: ast.AST, *, may_write: bool) -> list[str]:
    """What the file could do that the page denies, as `line: what`."""
    found: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
        owner = node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
        forbidden = isinstance(node.func, ast.Name) and name in RUNS_CODE
        forbidden |= owner == "os" and name in OS_REACHES or owner == "torch" and name in ("load", "save", "hub")
        forbidden |= not may_write and (name in WRITES or _opens_to_write(node, name))
        if forbidden:
            found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


def _opens_to_write(call: ast.Call, name: str) -> bool:
    if name != "open":
        return False
    # open(path, mode) and path.open(mode): some constant says how, and "r" is what is left out
    modes = [one.value for one in [*call.args, *(k.value for k in call.keywords)] if isinstance(one, ast.Constant)]
    return any(isinstance(mode, str) and set(mode) <= set("rwxabt+U") and set(mode) & set("wxa+") for mode in modes)


def _imported(tree: ast.AST) -> set[str]:
    named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in named}


@pytest.mark.parametrize("path", [*NODES, *CORE], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pack_reaches_nothing_but_the_host(path: Path) -> None:
    import sys

    tree = ast.parse(path.read_text(encoding="utf-8"))
    standard = _imported(tree) & set(sys.stdlib_module_names)
    assert standard <= HARMLESS | ALSO.get(path.name, set()), f"{path.name}: {standard - HARMLESS}"
    assert findings(tree, may_write=path.name == WRITER) == []


def test_no_node_can_reach_the_one_file_that_writes() -> None:
    users = []
    for path in [*NODES, *CORE]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level and (node.module or "").split(".")[-1] == "storage":
                users.append(path.name)
    assert users == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "os.system(text)", "open(path, 'wb')", "path.open('a')", "open(path, mode='r+b')", "torch.load(path)",
        "shutil.rmtree(path)", "path.write_text('')", "__import__(name)", "archive.extractall(folder)",
    ],
)  # fmt: skip
def test_the_scan_sees(line: str) -> None:
    assert findings(ast.parse(line), may_write=False)


def test_the_scan_lets_reading_pass() -> None:
    assert findings(ast.parse("open(path, 'rb'); path.open(); archive.open('data.pkl'); re.compile(x)"), may_write=False) == []
