"""Runs what has to pass, in parts that are processes of their own, and ends with a summary that fits on a screen.

    run_tests.py check     a first look: lint, types, tests/core and one restoration through the nodes
    run_tests.py test      every test once, in the newest tested ComfyUI, but those marked `long`
    run_tests.py long      those marked `long`, and the tests of the nodes once more in the oldest ComfyUI that is promised
    run_tests.py lowest    `test` on the least that a processor may offer: SSE instructions, one thread

Standard library only. All parts run, whatever the first one says; the exit code is 1 if one failed.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the file is what an older Python gets to see
    text = "error: expected Python 3.10 or newer, got %d.%d; run with another: make PYTHON=python3.12 ..."
    sys.stderr.write(text % sys.version_info[:2] + "\n")  # noqa: UP031
    sys.exit(2)

from hostrun.test_runs import run_tests_command  # noqa: E402 - after the version check, which older Pythons must be able to read

if __name__ == "__main__":
    sys.exit(run_tests_command(sys.argv[1:]))
