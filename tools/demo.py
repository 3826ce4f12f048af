"""Sets everything up from nothing and restores the bundled photo through a real ComfyUI server: `make demo`. Options: --help.

Standard library only, any working directory: the rest runs in the environment's own Python."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the file is what an older Python gets to see
    text = "error: expected Python 3.10 or newer, got %d.%d; run with another: make PYTHON=python3.12 ..."
    sys.stderr.write(text % sys.version_info[:2] + "\n")  # noqa: UP031
    sys.exit(2)

from hostrun.cli import run_in_environment  # noqa: E402 - after the version check, which older Pythons must be able to read

if __name__ == "__main__":
    sys.exit(run_in_environment("demo", "hostrun.demo", sys.argv[1:]))
