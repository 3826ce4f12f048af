"""The options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

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
