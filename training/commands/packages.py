"""What is said where a package is missing: one line that names it and says how it is installed."""

from __future__ import annotations

import argparse
import importlib.util
import sys

FEW = {"numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors", "torch": "torch", "tqdm": "tqdm"}
"""All that `convert`, `get-weights` and `restore --workflow` import beside the standard library, with their names for pip. All
five are in ComfyUI's own requirements."""
OURS = ("training", "faithdiff_core")
"""Where one of these cannot be imported, the mistake is ours, and no package is missing."""


def require_packages(arguments: argparse.Namespace) -> None:
    """Look for the few packages before a command that needs no others: torch, for one, warns at length where numpy is missing.

    Raises:
        ValueError: some are not installed.
    """
    if needs_few(arguments):
        missing = [name for module, name in FEW.items() if importlib.util.find_spec(module) is None]
        if missing:
            raise ValueError(_few_expected(f"no {', no '.join(missing)}"))


def missing_package(error: ImportError, arguments: argparse.Namespace | None) -> str | None:
    """The line for a failed import, or None where installing packages would not help.

    Args:
        error: what a command ended with.
        arguments: the parsed command line, or None where the parsing itself needed the package.
    """
    name = (error.name or "").split(".")[0]
    if name in OURS or name in sys.stdlib_module_names:
        return None
    if not name:
        got = str(error)
    elif isinstance(error, ModuleNotFoundError):
        got = f"no {FEW.get(name, name)}"
    else:  # there, but too old for a name that we import
        got = f"a {name} that does not fit ({error})"
    if arguments is None or needs_few(arguments):
        return _few_expected(got)
    return (
        f"expected the trainer's packages in this Python ({sys.executable}), got {got}; "
        "make an environment of its own (not ComfyUI's) and, in this pack's folder: python -m pip install \".[train]\""
    )


def needs_few(arguments: argparse.Namespace) -> bool:
    """Whether the command does without the trainer's packages."""
    return arguments.verb in ("convert", "get-weights") or (arguments.verb == "restore" and arguments.workflow is not None)


def _few_expected(got: str) -> str:
    *names, last = FEW.values()
    return (
        f"expected {', '.join(names)} and {last} in this Python ({sys.executable}), got {got}; "
        f"use the Python that ComfyUI runs with, which has them, or: python -m pip install {' '.join(FEW.values())}"
    )
