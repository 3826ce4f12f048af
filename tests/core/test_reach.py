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
    "__future__", "collections", "contextlib", "copy", "dataclasses", "errno", "fnmatch", "functools", "hashlib", "inspect", "io",
    "itertools", "json", "logging", "math", "os", "pathlib", "re", "struct", "sys", "threading", "time", "typing", "unicodedata",
    "zipfile", "zlib",
}  # fmt: skip
SAVER = "output.py"  # what is written into ComfyUI's output folder; only those who are named below import it
WRITER = "storage.py"  # weights as the trainer saves them; no node imports it
PICKLES = "pickle_check.py"  # names what a pickle asks for before the host's reader sees it, and never calls any of it
HUB = ROOT / "faithdiff_core" / "hub"  # what FaithDiff Get Weights and `get-weights` fetch, when somebody asks for it
FETCHERS = {HUB / name for name in ("download.py", "get.py", "half.py")}  # of that room, what writes
FOLDER_MAKER = ROOT / "nodes" / "weights" / "places.py"  # models/faithdiff, at the start
ALSO = {
    WRITER: {"shutil"}, PICKLES: {"pickle"}, "get.py": {"shutil"}, "record.py": {"urllib"},
    "routes.py": {"asyncio"},
}  # fmt: skip
RUNS_CODE = ("eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.", "torch.jit.", "torch.package.")
WRITES = {
    "chmod", "copyfile", "hardlink_to", "makedirs", "mkdir", "move", "remove", "removedirs", "rename", "rmdir", "rmtree",
    "save_file", "symlink_to", "touch", "truncate", "unlink", "write_bytes", "write_text", "writestr", "extract", "extractall",
}  # fmt: skip
OPENERS = ("open", "io.open", "FileIO", "io.FileIO", "ZipFile", "zipfile.ZipFile")
# Modules that reach further than what we take of them.
TAKEN = {
    "os": {"PathLike", "fstat", "path", "stat", "walk"}, "pickle": {"_Unpickler"}, "urllib": set[str](),
    "urllib.parse": {"urlsplit"},
}  # fmt: skip
TAKEN_TO_WRITE = {"os": TAKEN["os"] | {"SEEK_END", "fsync", "replace"}, "pickle": set[str](), "urllib": set[str]()}
TAKEN_TO_FETCH = {
    "os": TAKEN_TO_WRITE["os"] | {"name", "makedirs"}, "shutil": {"disk_usage"}, "asyncio": {"get_running_loop"},
}  # fmt: skip
MAPPED_PICKLE = "weights_only=True, mmap="  # half.py's reading of FaithDiff.bin, after it was walked through


def findings(tree: ast.AST, *, may_write: bool, may_fetch: bool = False) -> list[str]:
    """What the file could do that the page denies, as `line: what`."""
    taken = (TAKEN_TO_WRITE if may_write else TAKEN) | (TAKEN_TO_FETCH if may_fetch else {})
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            forbidden = node.attr not in taken.get(node.value.id, {node.attr})
        elif isinstance(node, ast.Name):  # the module as a value, for getattr
            forbidden = node.id in taken and id(node) not in owners
        elif isinstance(node, ast.ImportFrom):
            forbidden = not {alias.name for alias in node.names} <= taken.get(node.module or "", {a.name for a in node.names})
        elif isinstance(node, ast.Import):  # under another name we would not know it
            forbidden = any(alias.name in taken and alias.asname for alias in node.names)
        else:
            mapped = may_fetch and MAPPED_PICKLE in ast.unparse(node)
            forbidden = isinstance(node, ast.Call) and not mapped and _is_forbidden(node, may_write=may_write or may_fetch)
        if forbidden:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def _is_forbidden(call: ast.Call, *, may_write: bool) -> bool:
    path = ast.unparse(call.func)
    if any(path == name or name.endswith(".") and path.startswith(name) for name in RUNS_CODE):
        return True
    name = path.rpartition(".")[2]
    # Text has a `replace` of two arguments, a dataclass one of keywords; a path's has one and moves the file.
    moves = "." in path and name == "replace" and len(call.args) == 1 and not call.keywords
    return not may_write and (name in WRITES or moves or _opens_to_write(call, path))


def _opens_to_write(call: ast.Call, path: str) -> bool:
    if path not in OPENERS and not path.endswith(".open"):
        return False
    told = [*call.args[1 if path in OPENERS else 0 :], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    # path.open(mode), but archive.open(member): a name that a variable holds is no mode.
    modes = [one.value if isinstance(one, ast.Constant) else "w" if path in OPENERS else "r" for one in told[:1]]
    return any(isinstance(mode, str) and set(mode) <= set("rwxabt+U") and set(mode) & set("wxa+") for mode in modes)


def _reaches_writer(tree: ast.AST) -> bool:
    writer = WRITER.removesuffix(".py")
    return any(
        writer in ((node.module or "").split(".")[-1], *(alias.name for alias in node.names))
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    )


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
    may_fetch = path in FETCHERS or path == FOLDER_MAKER or path.name == "routes.py"
    assert findings(tree, may_write=path.name in (WRITER, SAVER), may_fetch=may_fetch) == []


def test_no_node_can_reach_the_one_file_that_writes() -> None:
    assert [path.name for path in [*NODES, *CORE] if _reaches_writer(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_only_the_nodes_that_save_reach_what_writes() -> None:
    importers = {path.name for path in NODES if "photos.output import" in path.read_text(encoding="utf-8")}
    assert importers == {"save_photo.py", "turn.py", "record.py"}  # the last two: results of a folder, and the list of them


def test_only_get_weights_reaches_the_hub() -> None:
    asking = {path.relative_to(ROOT).as_posix() for path in [*NODES, *CORE] if "huggingface_hub" in _imported(_tree(path))}
    assert asking == {"faithdiff_core/hub/record.py", "faithdiff_core/hub/download.py"}
    reaching = {path.relative_to(ROOT).as_posix() for path in NODES if "faithdiff_core.hub." in path.read_text(encoding="utf-8")}
    named = "nodes/seam/folders.py"  # takes names of files from the catalogue, which fetches nothing
    assert reaching == {"nodes/get_weights.py", named, *(f"nodes/weights/{name}.py" for name in ("job", "places", "routes"))}


@pytest.mark.parametrize("path", sorted(HUB.glob("*.py")), ids=lambda path: path.name)
def test_the_hubs_package_is_imported_when_it_is_asked_for(path: Path) -> None:
    """Without it, or with an old one, everything else works."""
    assert _imported(ast.Module([node for node in _tree(path).body if "import" in type(node).__name__.lower()], [])) <= {
        *HARMLESS, *ALSO.get(path.name, ()), "torch", "safetensors",
    }  # fmt: skip


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line", ["from ..faithdiff_core import storage", "from .storage import x", "from ..faithdiff_core.storage import x"]
)
def test_the_scan_sees_who_reaches_the_writer(line: str) -> None:
    assert _reaches_writer(ast.parse(line)) and not _reaches_writer(ast.parse(line.replace("storage", "geometry")))


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "os.system(text)", "open(path, 'wb')", "path.open('a')", "open(path, mode='r+b')", "torch.load(path)",
        "shutil.rmtree(path)", "path.write_text('')", "__import__(name)", "archive.extractall(folder)", "torch.hub.load(name)",
        "os.replace(a, b)", "os.execvp(a, b)", "os.spawnl(a, b)", "os.symlink(a, b)", "os.link(a, b)", "os.truncate(a, 0)",
        "list(map(os.remove, names))", "from os import system", "import os as harmless", "getattr(os, name)", "os.environ",
        "zipfile.ZipFile(path, 'w')", "ZipFile(path, mode='a')", "zipfile.ZipFile(path, mode)", "io.FileIO(path, 'w')",
        "pickle.loads(data)", "pickle.Unpickler(file)", "from pickle import loads", "path.replace(other)", "torch.jit.load(path)",
        "urllib.request.urlopen(url)", "path.hardlink_to(other)", "io.open(path, 'w')", "compile(text, '', 'exec')",
    ],
)  # fmt: skip
def test_the_scan_sees(line: str) -> None:
    assert findings(ast.parse(line), may_write=False)


@pytest.mark.parametrize("line", ["os.system(text)", "os.remove(path)", "torch.save(x, path)", "pickle.dump(x, file)"])
def test_the_scan_sees_what_even_the_writer_may_not(line: str) -> None:
    assert findings(ast.parse(line), may_write=True)


@pytest.mark.parametrize(
    "line",
    [
        "os.system(text)", "torch.load(path, weights_only=False)", "shutil.rmtree(path)", "from shutil import copy",
        "asyncio.run(x)", "asyncio.create_subprocess_shell(x)",
    ],
)  # fmt: skip
def test_the_scan_sees_what_even_a_fetcher_may_not(line: str) -> None:
    assert findings(ast.parse(line), may_write=False, may_fetch=True)


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'rb')", "path.open()", "archive.open('data.pkl')", "archive.open(entry)", "re.compile(x)", "os.fstat(1)",
        "os.path.join(a, b)", "zipfile.ZipFile(path)", "io.FileIO(path)", "text.replace('a', 'b')", "replace(sizes, a=1)",
        "pickle._Unpickler(file)", "def f(path: os.PathLike): pass",
    ],
)  # fmt: skip
def test_the_scan_lets_reading_pass(line: str) -> None:
    assert findings(ast.parse(line), may_write=False) == []
