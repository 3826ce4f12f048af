"""The one error that ends a command with a single line and exit code 2, and the frame that turns it into that."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, what a shell expects after Ctrl-C."""


class SetupError(Exception):
    """Something the user can act on. The message is one line: what was expected, what was found, what to do."""


def run_command(body: Callable[[], int]) -> int:
    """Exit code of `body()`. No traceback but one line on stderr: code 2 for a SetupError or a full disk, 130 after Ctrl-C
    or SIGTERM."""
    try:
        with stop_signals_as_interrupt():
            return body()
    except SetupError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        sys.stderr.write(f"error: {describe_os_error(error)}\n")
        return EXIT_USER_ERROR


def describe_os_error(error: OSError) -> str:
    """One line for a full or a read-only disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no disk space left{where}; free some space and run the same command again"
    return f"cannot write {error.filename}: {error.strerror}; make it writable or choose another folder"


@contextmanager
def stop_signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt inside the block, so that every clean-up that Ctrl-C runs also runs for them."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    # A shell without job control starts background commands with SIGINT ignored; this command must stay stoppable.
    before_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before_int)
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
