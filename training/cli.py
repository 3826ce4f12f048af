"""The parser of `python -m training`, and what its exit codes mean."""

from __future__ import annotations

import argparse
import sys

from training.commands import data, evaluate, get_weights, restore, study, text, train, weights
from training.commands.packages import missing_package, require_packages
from training.common.stopping import DivergedError, Interrupted, LostProcessError, SaveError

COMMANDS = (get_weights, data, train, weights, evaluate, restore, text, study)
"""In the order that --help lists them. Each has `add(verbs)`, and a function for each of its verbs that takes what was parsed;
what a verb needs is imported in its function, so that --help stays quick."""


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    root = argparse.ArgumentParser(prog="python -m training", description="Train, degrade, export and evaluate FaithDiff models.")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(verbs)
    return root


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0 = done, 1 = some pictures failed, 2 = wrong input, 3 = the loss diverged, 4 = the end of a run could not
    be saved, 5 = another process of the run was lost, 130 = Ctrl-C, 143 = SIGTERM.
    """
    arguments = None
    try:
        arguments = parser().parse_args(argv)
        require_packages(arguments)
        return arguments.run(arguments) or 0
    except ImportError as error:
        line = missing_package(error, arguments)
        if line is None:
            raise
        return _failed(line, 2)
    except ValueError as error:
        return _failed(str(error), 2)
    except SaveError as error:
        return _failed(str(error), 4)
    except OSError as error:
        return _failed(f"expected to read and write files, got {error}, check the path and the disk", 2)
    except MemoryError:
        return _failed("expected memory for what was read, got too little, end other programs or take smaller files", 2)
    except DivergedError as error:
        return _failed(str(error), 3)
    except LostProcessError as error:
        return _failed(str(error), 5)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was trained since the last checkpoint is lost, go on with --resume", file=sys.stderr)
        return 130


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
