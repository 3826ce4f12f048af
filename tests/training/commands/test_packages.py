"""What a missing package looks like: one line that names it and says what to install."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from support.patience import PATIENCE_S

from training.commands.packages import missing_package

ROOT = Path(__file__).resolve().parents[3]
CONVERT = ("convert", "demo/nano_faithdiff.safetensors", "--out")
QUEUE = ("restore", "demo/photo_lq.png", "OUT", "--workflow", "workflows/api/faithdiff_nano.json", "--server", "127.0.0.1:1")
OTHERS = ("accelerate", "diffusers", "filelock", "kornia", "peft", "psutil", "tensorboard", "transformers")
"""The packages of the `train` extra that are not among the few."""


def run_without(packages: tuple[str, ...], arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The command in a Python where an import of these ends as if they were not installed."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({packages!r})); "
    command = [sys.executable, "-c", hidden + "from training.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("arguments", [(*CONVERT, "OUT.safetensors"), QUEUE], ids=["convert", "restore"])
def test_without_packages_one_line_says_what_to_install(arguments: tuple[str, ...]) -> None:
    done = run_without(("numpy", "PIL"), arguments)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: expected ") and "got no numpy, no pillow;" in line
    assert line.endswith("python -m pip install numpy pillow safetensors torch tqdm")


def test_the_trainers_packages_are_asked_for_where_they_are_needed() -> None:
    local = ("--model", "demo/nano_faithdiff.safetensors", "--vae", "demo/nano_vae.safetensors")
    done = run_without(("diffusers",), (*QUEUE[:3], *local))
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "got no diffusers;" in line and line.endswith('python -m pip install ".[train]"')


def test_convert_needs_the_few_and_no_other(tmp_path: Path) -> None:
    """As in ComfyUI's own Python."""
    done = run_without(OTHERS, (*CONVERT, str(tmp_path / "out.safetensors")))
    assert done.returncode == 0, done.stderr
    assert "full layout, 430 tensors" in done.stdout


def test_restoring_by_a_queue_needs_the_few_and_no_other(tmp_path: Path) -> None:
    """It goes on as far as the server, which is not there."""
    done = run_without(OTHERS, (*QUEUE[:2], str(tmp_path / "out"), *QUEUE[3:], "--give-up-after", "0.1"))
    assert done.returncode == 2 and "expected a ComfyUI that answers" in done.stderr


def test_a_package_that_is_too_old_is_named() -> None:
    error = ImportError("cannot import name 'lock_descriptor' from 'filelock'", name="filelock")
    line = missing_package(error, argparse.Namespace(verb="train", workflow=None))
    assert line is not None and "got a filelock that does not fit (cannot import name 'lock_descriptor'" in line


@pytest.mark.parametrize("name", ["training.nowhere", "faithdiff_core", "_lzma"])
def test_our_own_mistakes_are_not_taken_for_missing_packages(name: str) -> None:
    assert missing_package(ModuleNotFoundError(name=name), None) is None
