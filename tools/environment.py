"""Sets up the environment from nothing (`--with test`: with the test tools) and prints where it is, or runs something in it.

    environment.py [--with demo|test]                      print the paths as JSON
    environment.py [--with demo|test] --run ARGUMENTS      the environment's Python with these arguments
    environment.py --with audit --run ARGUMENTS            the same in the environment of the audit tools
    environment.py ... --no-host --run ARGUMENTS           the same, without COMFYUI_PATH among its variables

Standard library only; any working directory. COMFYUI_PATH: use that ComfyUI. COMFYUI_PYTHON: and that Python.
FAITHDIFF_CACHE: where to put things.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the file is what an older Python gets to see
    text = "error: expected Python 3.10 or newer, got %d.%d; run with another: make PYTHON=python3.12 ..."
    sys.stderr.write(text % sys.version_info[:2] + "\n")  # noqa: UP031
    sys.exit(2)

from hostrun.cli import environment_command  # noqa: E402 - after the version check, which older Pythons must be able to read

if __name__ == "__main__":
    sys.exit(environment_command(sys.argv[1:]))
