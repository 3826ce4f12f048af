"""What the commands over folders share: an option, a check, and the way in which they end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it brings torch, for which nobody who asks for --help should wait
    from training.common.folders import Tally


def add_again(verb: argparse.ArgumentParser) -> None:
    """The option that lets results take the place of other files; never of sources."""
    verb.add_argument("--again", action="store_true", help="replace files in OUT that no earlier run has made, too")


def at_least(option: str, value: int, least: int, example: int) -> None:
    """Hold a number of the command line against its limit.

    Raises:
        ValueError: it is below it.
    """
    if value < least:
        raise ValueError(f"expected --{option} of at least {least}, got {value}, choose for example {example}")


def end(tally: Tally, out: Path) -> int:
    """Say how a folder went: names on stderr, one line on stdout. Returns the exit code."""
    for line in tally.lines():
        print(line, file=sys.stderr)
    print(f"{out}: {tally.summary()}")
    return tally.exit_code
