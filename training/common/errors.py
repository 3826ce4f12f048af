"""How a run can end early. Importing this costs nothing, so every command can name them."""

from __future__ import annotations

import signal


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a finite number."""


class SaveError(OSError):
    """The end of a run could not be saved."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer."""

    def __init__(self, process: int, reason: str) -> None:
        super().__init__(
            f"process {process} has lost another process of this run ({reason}); the last checkpoint is kept: see what the other "
            "one printed last, then launch again with --resume"
        )


class Interrupted(KeyboardInterrupt):
    """Training stopped on a signal; everything up to the last step is saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        self.exit_code = 128 + signal_number
        """As shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        super().__init__(f"stopped by {signal.Signals(signal_number).name} and saved after {step} steps, go on with --resume")
