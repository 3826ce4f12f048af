"""Whether a .safetensors file is what its header says, before a more trusting reader has it."""

from __future__ import annotations

import os
from typing import Any, cast

from safetensors import safe_open

MAX_TENSORS = 20_000
"""In a file. A full SDXL checkpoint has 2641; names are cheap, and every reader looks at each of them."""


def check_safetensors(path: str | os.PathLike[str]) -> None:
    """Reads the header only, by the format's own strict reader: no overlaps, no gaps, no metadata but text, sizes as stored.

    Raises:
        ValueError: more than MAX_TENSORS tensors.
        SafetensorError, OSError: not such a file, or not to be read.
    """
    with cast("Any", safe_open(path, framework="pt")) as file:  # its types stop at the name
        count = len(file.keys())
    if count > MAX_TENSORS:
        raise ValueError(f"{count} tensors, {MAX_TENSORS} at most")
