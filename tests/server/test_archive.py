"""The archive that the registry serves: what is in it, and that a ComfyUI with nothing but it restores the demo photo."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hostrun.client import Client
from hostrun.gpu import has_gpu
from hostrun.paths import ROOT
from hostrun.server import HostServer, ServerOptions, free_port
from PIL import Image
from support.patience import PATIENCE_S

INSTALLED_NAME = "faithdiff"  # the folder that ComfyUI-Manager and comfy-cli make: the project's name
MAX_BYTES = 40 * 1024**2  # before packing; 27 MB of them are the nano model
MAX_NAME = 100  # Windows allows 260 characters, and users' ComfyUI folders are deep
RESERVED_ON_WINDOWS = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
HOST_CODE = ("__init__.py", "nodes/", "faithdiff_core/")
# What takes a device, a precision or its memory out of the host's hands.
FORBIDDEN = re.compile(
    r"\.cuda\(|\.to\(['\"]cuda|torch\.autocast|torch\.load\(|(?<!soft_)empty_cache\(|(?<!operations\.)\bnn\."
    r"(?:Linear|Conv\dd|GroupNorm|LayerNorm|Embedding|MultiheadAttention)\("
)
TEXT_OF_WINDOWS = (".py", ".toml", ".txt")  # what tools there may open without naming an encoding


MAPPED_PICKLE = re.compile(r"torch\.load\(source, map_location=\"cpu\", weights_only=True, mmap=")
"""How the core reads FaithDiff.bin to convert it: by the host's reader it would take 10 GB of memory."""


def packed_files() -> list[str]:
    """As comfy-cli chooses them: what git holds, less what .comfyignore names (patterns as in .gitignore).

    Files that git does not hold yet and does not ignore count, so that a new one is tested before it is committed.
    """
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    wanted = subprocess.run([*listed, "--exclude-standard"], capture_output=True, text=True, encoding="utf-8", check=True).stdout
    ignored = subprocess.run(
        [*listed, "--ignored", "--exclude-from", str(ROOT / ".comfyignore")],
        capture_output=True, text=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip
    names = set(wanted.split("\0")) - set(ignored.split("\0"))
    return sorted(name for name in names if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def names() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a git clone can be packed")
    return packed_files()


@pytest.fixture(scope="module")
def installed(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive (stored, not deflated: quicker), packed and unpacked again into the custom_nodes folder of an empty ComfyUI."""
    base = tmp_path_factory.mktemp("clean")
    archive, target = base / "node.zip", base / "custom_nodes" / INSTALLED_NAME
    with zipfile.ZipFile(archive, "w") as packed:
        for name in names:
            packed.write(ROOT / name, name)
    assert archive.stat().st_size < MAX_BYTES
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target)
    archive.unlink()
    return target


@pytest.fixture(scope="module")
def clean_server(installed: Path) -> Iterator[HostServer]:
    python, host = Path(sys.executable), Path(os.environ["COMFYUI_PATH"])
    base = installed.parents[1]
    # `pack` is linked under another name, which the last whitelist leaves out: the only pack that loads is the unpacked one.
    options = ServerOptions(
        python=python, host=host, base=base, port=free_port(), cpu=not has_gpu(python), pack=installed,
        extra_arguments=("--whitelist-custom-nodes", INSTALLED_NAME),
    )  # fmt: skip
    (base / "input").mkdir()
    shutil.copyfile(installed / "demo" / "photo_lq.png", base / "input" / "photo_lq.png")
    with HostServer(options) as running:
        yield running


def test_it_holds_what_users_need_and_nothing_else(names: list[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in names}
    needed = {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md", "README.zh.md", "CHANGELOG.md"}
    needed |= {"nodes", "faithdiff_core", "web", "workflows", "training", "demo", "docs", "CONTRIBUTING.md"}
    assert needed <= tops
    # A folder that is new here: name it in .comfyignore, or above where users need it.
    assert tops - needed <= {"ARCHITECTURE.md", "SECURITY.md", "locales", "subgraphs"}
    for_the_page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "web").rglob("*") if path.is_file()}
    assert for_the_page <= set(names)


def test_names_are_good_on_windows(names: list[str]) -> None:
    assert [name for name in names if len(name) > MAX_NAME or re.search(r'[<>:"|?*\\\x00-\x1f]', name)] == []
    parts = [part for name in names for part in PurePosixPath(name).parts]
    assert [part for part in parts if part.endswith((".", " ")) or part.split(".")[0].lower() in RESERVED_ON_WINDOWS] == []
    assert len({name.lower() for name in names}) == len(names)


def test_sources_can_be_read_in_windows_own_encoding(names: list[str]) -> None:
    for name in names:
        if name.endswith(TEXT_OF_WINDOWS):
            (ROOT / name).read_text(encoding="utf-8").encode("cp1252")


def test_the_registrys_rules(installed: Path) -> None:
    """The command of `comfy node validate` (comfy-cli 1.23.0, command/custom_nodes/command.py:1125), with the rules as errors."""
    command = [sys.executable, "-m", "ruff", "check", ".", "-q", "--isolated", "--select", "S102,S307,E702"]
    checked = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_host_code_leaves_devices_and_weights_to_the_host(names: list[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in names
        if name.startswith(HOST_CODE) and name.endswith(".py")
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(MAPPED_PICKLE.sub("", line) if name == "faithdiff_core/hub/half.py" else line)
    ]
    assert found == []


def test_no_pickle_is_read_with_its_code(names: list[str]) -> None:
    for name in names:
        if name.endswith(".py"):
            text = (ROOT / name).read_text(encoding="utf-8")
            for call in re.finditer(r"torch\.load\(", text):
                assert "weights_only=True" in text[call.start() : call.start() + 200], name


def test_the_readmes_links_lead_into_the_archive(names: list[str]) -> None:
    """Those that lead anywhere: tests/core/test_readme.py finds the others."""
    for readme in ("README.md", "README.zh.md"):
        links = re.findall(r"\]\(([^)\s#]+)", (ROOT / readme).read_text(encoding="utf-8"))
        local = {link for link in links if (ROOT / link).is_file()}
        assert any(link.startswith("docs/pictures/") for link in local) and local <= set(names)


@pytest.mark.long
def test_a_clean_comfyui_restores_the_demo_photo(clean_server: HostServer, demo_prompt: dict[str, Any]) -> None:
    with Client(clean_server.url, check_server=clean_server.check_running) as client:
        info = client.object_info()
        assert info["FaithDiffSampler"]["python_module"] == f"custom_nodes.{INSTALLED_NAME}"
        assert "faithdiff_upscale" in client.get("/workflow_templates")[INSTALLED_NAME]
        assert client.get_bytes(f"/extensions/{INSTALLED_NAME}/docs/FaithDiffSampler.md").startswith(b"# FaithDiff Sampler")
        (sampler,) = (node for node in demo_prompt.values() if node["class_type"] == "FaithDiffSampler")
        sampler["inputs"]["steps"] = 4  # 20 are run elsewhere; here it is about what is in the archive
        history = client.wait(client.queue(demo_prompt), PATIENCE_S)
        restored = Image.open(io.BytesIO(client.images(history)[-1]))
    assert restored.size == tuple(2 * side for side in Image.open(ROOT / "demo" / "photo_lq.png").size)
    assert min(high - low for low, high in restored.convert("RGB").getextrema()) > 100  # a photo, not a grey sheet
    log = clean_server.log()
    assert "IMPORT FAILED" not in log and str(ROOT) not in log
