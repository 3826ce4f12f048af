"""The short version of training_kills.py and training_ranks.py, in one process: training_short.py WORK."""

from __future__ import annotations

import sys
from pathlib import Path

import training_kills
import training_ranks

if __name__ == "__main__":
    work = Path(sys.argv[1])
    failed = training_kills.main([str(work / "kills"), "--kills", "4", "--plain", "0", "--chain", "4"])
    sys.exit(training_ranks.main([str(work / "ranks"), "--kills", "1"]) or failed)
