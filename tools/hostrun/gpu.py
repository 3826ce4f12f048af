"""Whether a Python's torch can use a GPU: without one the host has to be told `--cpu`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_PROBE = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"


def has_gpu(python: Path, *, own_python: bool = True) -> bool:
    """`own_python`: it has the builds that this project installs, so that on Linux no NVIDIA driver means no GPU (and torch
    need not be imported to know)."""
    if own_python and sys.platform.startswith("linux") and shutil.which("nvidia-smi") is None:
        return False
    result = subprocess.run([str(python), "-c", _PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return result.returncode == 0 and result.stdout.strip() == "True"
