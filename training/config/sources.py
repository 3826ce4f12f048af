"""What a run is given on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files a run starts from. Which are needed depends on the stage; see weights/initial.py.

    data: manifest. vae: VAE to use in place of the base's. init: run folder, or FaithDiff file. base: SDXL checkpoint or
    diffusers folder. text: diffusers folder with the text encoders, where base has none.
    """

    data: Path
    vae: Path | None = None
    init: Path | None = None
    base: Path | None = None
    text: Path | None = None
