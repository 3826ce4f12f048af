"""The environment of the audit tools: pip-audit, cyclonedx-bom and uv must not decide what the pack and its tests see."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .environment import check_this_python, make_venv, pip_install, venv_python
from .lock import held
from .paths import cache_dir
from .pins import digest_of, locked
from .status import say

STAMP = "faithdiff-audit.json"


def ensure_audit() -> Path:
    """The interpreter of that environment, made from nothing where needed (about 40 MB to fetch, 150 MB on disk).

    Raises SetupError: wrong Python, no venv module, no network."""
    check_this_python()
    cache = cache_dir()
    folder = cache / f"audit-py{sys.version_info.major}.{sys.version_info.minor}-{digest_of(('build', 'audit'))}"
    python = venv_python(folder)
    with held(cache / "set-up-audit.lock", lambda: say("  another set-up is running; waiting for it ...")):
        if not ((folder / STAMP).is_file() and python.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            make_venv(folder)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                log = cache / "set-up-audit.log"
                log.unlink(missing_ok=True)
                pip_install(python, locked("build"), "1/2 pip, setuptools, wheel", log, Path(scratch), first=True)
                pip_install(python, locked("audit"), "2/2 audit tools", log, Path(scratch))
            (folder / "stamp.tmp").write_text(json.dumps({"python": sys.version.split()[0]}) + "\n", encoding="utf-8")
            os.replace(folder / "stamp.tmp", folder / STAMP)
    return python
