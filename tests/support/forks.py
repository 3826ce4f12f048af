"""Work in a forked process, which has all that this one has imported."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

FAILED = 70
"""Exit code of work that raised; EX_SOFTWARE of sysexits.h."""


def start(work: Callable[[], int], printed: Path) -> int:
    """Starts `work` in a child that appends what it prints to `printed`; the child's number.

    It ends with work's exit code, or with FAILED and a traceback in `printed`, and never comes back into this process's code."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else the child would print it once more
    child = os.fork()
    if child:
        return child
    code = FAILED
    try:
        file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
