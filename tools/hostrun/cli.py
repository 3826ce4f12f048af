"""The command line of tools/environment.py."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence

from .environment import PROFILES, Environment, ensure, ensure_oldest
from .errors import run_command
from .paths import TOOLS

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
        "--with", dest="profile", choices=PROFILES, default="demo", help="what has to be installed (default: %(default)s)"
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
        found = ensure_oldest() if options.oldest_host else ensure(options.profile)
        if options.run is not None:
            return replace_process(found, options.run, with_host=not options.no_host)
        print(json.dumps({"python": str(found.python), "comfyui": str(found.host), "own_python": found.own_python}, indent=2))
        return 0

    return run_command(act)


def run_in_environment(profile: str, module: str, arguments: Sequence[str]) -> int:
    """Set up `profile`, then run a module of tools/ in it. Exit code of the command line."""
    start = _START.format(tools=str(TOOLS), module=module)
    return run_command(lambda: replace_process(ensure(profile), ["-c", start, *arguments]))


def replace_process(environment: Environment, arguments: Sequence[str], *, with_host: bool = True) -> int:
    """Become `environment.python ARGUMENTS`, so that a signal to this command reaches it. Windows cannot: there it is run
    as a child, and this is its exit code."""
    command = [str(environment.python), *arguments]
    variables = {name: value for name, value in os.environ.items() if name not in ("COMFYUI_PATH", "PYTHONPATH", "PYTHONHOME")}
    if with_host:
        variables["COMFYUI_PATH"] = str(environment.host)
    if os.name != "nt":
        os.execve(command[0], command, variables)
    return subprocess.call(command, env=variables)
