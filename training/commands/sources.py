"""What several commands share: options, and the way in which they end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.common.folders import Tally
from training.config.sources import Sources


def add_sources(verb: argparse.ArgumentParser) -> None:
    """The files a run starts from."""
    verb.add_argument("--data", type=Path, required=True, help="manifest from prepare")
    verb.add_argument(
        "--base", type=Path, help="SDXL checkpoint, or a diffusers folder of one: UNet, VAE and text encoders to start from"
    )
    verb.add_argument("--init", type=Path, help="run folder to start from, or a FaithDiff file (FaithDiff.bin, .safetensors)")
    verb.add_argument("--vae", type=Path, help="VAE to use in place of the base's")
    verb.add_argument("--text", type=Path, help="diffusers folder with the two text encoders, where --base has none")


def sources_of(arguments: argparse.Namespace) -> Sources:
    """The files a run starts from, as named on the command line."""
    return Sources(data=arguments.data, vae=arguments.vae, init=arguments.init, base=arguments.base, text=arguments.text)


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
