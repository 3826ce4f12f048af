"""Tools that one soak alone needs: fetched once, by their hashes, into the cache folder, and not into the environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hostrun.paths import cache_dir


def fetched(requirements: Path) -> Path:
    """The folder in which the packages of a file lie, to be put on sys.path: exact versions with hashes, no others, no sources.

    Raises ValueError, with pip's last word, where they cannot be had."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:10]
    place = cache_dir() / f"{requirements.stem}-py{sys.version_info[0]}{sys.version_info[1]}-{digest}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"]
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            done = subprocess.run(
                [*command, "--target", f"{folder}/got", "--requirement", str(requirements)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ValueError(f"expected to fetch {requirements.name}, got: {last[:200]}")
            os.replace(f"{folder}/got", place)
    return place
