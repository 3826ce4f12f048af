"""The command line of tools/environment.py."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .audit_environment import ensure_audit
from .environment import PROFILES, ensure, ensure_oldest
from .errors import run_command
from .paths import TOOLS

AUDIT = "audit"
# tools/ goes on the path for this one program; a Ctrl-C while it still imports is no traceback either.
_START = """
import runpy, sys
sys.path.insert(0, {tools!r})
sys.argv[0] = {module!r}
try:
    runpy.run_module({module!r}, run_name="__main__")
except KeyboardInterrupt:
    sys.exit(130)
"""


def environment_command(arguments: Sequence[str]) -> int:
    """Exit code of the command line; with --run that of what was run."""
    parser = argparse.ArgumentParser(
        prog="environment.py", description="Set up ComfyUI and a Python for it, once, then only look them up."
    )
    parser.add_argument(
        "--with",
        dest="profile",
        choices=(*PROFILES, AUDIT),
        default="demo",
        help="what has to be installed (default: %(default)s); audit: no ComfyUI, only the tools of `make audit`",
    )
    parser.add_argument(
        "--oldest-host", action="store_true", help="use the oldest ComfyUI that the pack promises to run in, not the current one"
    )
    parser.add_argument("--no-host", action="store_true", help="run without COMFYUI_PATH")
    parser.add_argument(
        "--run", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="run the environment's Python with these arguments"
    )
    options = parser.parse_args(arguments)

    def act() -> int:
        if options.profile == AUDIT:
            python = ensure_audit()
            if options.run is not None:
                return replace_process(python, options.run)
            print(json.dumps({"python": str(python)}, indent=2))
            return 0
        found = ensure_oldest() if options.oldest_host else ensure(options.profile)
        if options.run is not None:
            return replace_process(found.python, options.run, host=None if options.no_host else found.host)
        print(json.dumps({"python": str(found.python), "comfyui": str(found.host), "own_python": found.own_python}, indent=2))
        return 0

    return run_command(act)


def run_in_environment(profile: str, module: str, arguments: Sequence[str]) -> int:
    """Set up `profile`, then run a module of tools/ in it. Exit code of the command line."""
    start = _START.format(tools=str(TOOLS), module=module)

    def act() -> int:
        found = ensure(profile)
        return replace_process(found.python, ["-c", start, *arguments], host=found.host)

    return run_command(act)


def replace_process(python: Path, arguments: Sequence[str], *, host: Path | None = None) -> int:
    """Become `python ARGUMENTS`, so that a signal to this command reaches it. Windows cannot: there it is run as a child, and
    this is its exit code. COMFYUI_PATH is set to `host`, or to nothing."""
    command = [str(python), *arguments]
    variables = {name: value for name, value in os.environ.items() if name not in ("COMFYUI_PATH", "PYTHONPATH", "PYTHONHOME")}
    if host is not None:
        variables["COMFYUI_PATH"] = str(host)
    if os.name != "nt":
        os.execve(command[0], command, variables)  # noqa: S606 - the environment's own interpreter, by its path
    return subprocess.call(command, env=variables)
