"""Lets every test import the pack the way the host does, with or without a host, without running the pack's root `__init__`.

With COMFYUI_PATH: the host is importable, and the repository root is not (our `nodes/` would shadow the host's `nodes.py`).
Without it: the repository root is importable, for `training`; tests/host and tests/server are left out.
Either way `comfyui_faithdiff.faithdiff_core`, `comfyui_faithdiff.nodes` are the pack's parts, and `hostrun` is what is in tools/.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
ALIAS = "comfyui_faithdiff"
HOST = os.environ.get("COMFYUI_PATH")

# The nets in tests are tiny: further threads only wait for one another, on a busy machine ten times as long as one alone needs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if ALIAS not in sys.modules:
    package = types.ModuleType(ALIAS)
    package.__path__ = [str(ROOT)]
    sys.modules[ALIAS] = package

for folder in (ROOT / "tools", TESTS):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

if HOST:
    collect_ignore = ["training"]
    sys.path.insert(0, HOST)
    # Must be set before any other part of the host is imported; the host parses no command line unless its main.py runs.
    from comfy.cli_args import args as host_args  # pyright: ignore[reportMissingImports]
    from hostrun.gpu import has_gpu

    host_args.cpu = not has_gpu(Path(sys.executable))
    # Models, input, output and user folders of a test never are those of somebody's installation.
    host_args.base_directory = tempfile.mkdtemp(prefix="faithdiff-tests-")
    atexit.register(shutil.rmtree, host_args.base_directory, ignore_errors=True)
else:
    collect_ignore = ["host", "server"]
    sys.path.append(str(ROOT))

from support.file_order import place_in_line  # noqa: E402 - the folder was put on the path above
from support.session_server import client, demo_prompt, server, server_hub  # noqa: E402, F401 - fixtures


class _RootIsADirectory:
    """pytest takes a folder with `__init__.py` for a package and imports it; the pack's needs the host."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "host: needs a ComfyUI checkout in COMFYUI_PATH")
    config.addinivalue_line("markers", "long: takes long or repeats; left to `make test-long`")
    config.pluginmanager.register(_RootIsADirectory(), "root-is-a-directory")


def pytest_report_header() -> str:
    return (
        f"host: {HOST}; tests/training left out"
        if HOST
        else "no host (COMFYUI_PATH is not set): tests/host and tests/server left out"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of workers that share out files; the hook is there where pytest-xdist is."""
    if config.getoption("dist") != "loadfile":
        return None
    from support.by_files import ByFilesAndServers

    return ByFilesAndServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place_in_line(item.path.relative_to(TESTS)))
    if not HOST:
        for item in items:
            if "host" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="COMFYUI_PATH is not set"))
