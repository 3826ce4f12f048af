"""The worst pictures, each as one strip to look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.common.images import read_image, write_png
from training.evaluate.rows import Paths
from training.reports.sheets import sheet

GAP_PX = 8
"""White between the parts of a strip."""


def write_strips(folder: Path, keys: Sequence[str], columns: Mapping[str, Paths]) -> dict[str, Path]:
    """One PNG a key with the pictures of `columns` side by side at full size, numbered in the order of `keys`; their paths.

    Strips that an earlier report left in `folder` are removed.
    """
    written: dict[str, Path] = {}
    for number, key in enumerate(keys, start=1):
        written[key] = folder / f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]', '_', key)}.png"
        write_png(written[key], sheet([[read_image(paths[key]) for paths in columns.values()]], gap_px=GAP_PX))
    for path in folder.glob("[0-9][0-9]_*.png"):
        if path not in written.values():
            path.unlink()
    return written
