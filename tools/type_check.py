"""Runs pyright over the repository with the host importable: half of `make lint`. Needs the environment and COMFYUI_PATH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


PARTS = ("__init__.py", "faithdiff_core", "nodes", "training", "tools")


def main() -> int:
    """pyright's exit code. The settings name the host's folder, which no two machines share: they are written at each run."""
    host = os.environ["COMFYUI_PATH"]
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    environments = [
        {"root": str(ROOT / "training"), "extraPaths": [str(ROOT)]},
        {"root": str(ROOT / "tools")},
        {"root": str(ROOT / "nodes"), "extraPaths": [host]},
        {"root": str(ROOT), "extraPaths": [host]},
    ]
    include = [str(ROOT / name) for name in PARTS]
    settings = build / "pyrightconfig.json"
    settings.write_text(
        json.dumps({"extends": "../pyproject.toml", "include": include, "executionEnvironments": environments}), encoding="utf-8"
    )
    # basedpyright is pyright with its own JavaScript runtime inside the wheel.
    command = [sys.executable, "-m", "basedpyright", "--project", str(settings), "--pythonpath", sys.executable, *sys.argv[1:]]
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
