"""The environment of every command: a ComfyUI and a Python that holds its requirements. Made once, outside the clone.

    cache/                                FAITHDIFF_CACHE, else ~/.cache/comfyui-faithdiff
      comfyui-<version>-<hash>/           the host's source, where no ComfyUI is around already (and the oldest, for tests)
      env-py3.11-<digest of the locks>/     the virtual environment
        faithdiff-demo.json               stamp: the host's requirements are in
        faithdiff-test.json               stamp: the tools of `make test` and `make lint` are in as well
      set-up.lock, set-up.log

An environment without its stamp was interrupted: it is deleted and made anew, never used.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .errors import SetupError
from .lock import held
from .paths import GIB, cache_dir, existing_comfyui, require_free_space
from .pins import TORCH_TRIO, digest, for_another_host, locked
from .pip import run_pip
from .source import OLDEST, fetch_host, host_folder
from .status import minutes, say

PROFILES = ("demo", "test")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)
"""What torch 2.11.0 has wheels for."""

# Measured on Linux with the CUDA builds: 6.5 GB installed, 8.2 GB at the peak while the wheels are unpacked;
# pip's own cache may take more.
DEMO_DISK_BYTES = 9 * GIB
TEST_DISK_BYTES = 1 * GIB
CACHE_ADVICE = "set FAITHDIFF_CACHE to a folder on another disk"
NEEDED_MODULES = {
    "demo": ("torch", "torchvision", "torchaudio", "aiohttp", "PIL"),
    "test": ("pytest", "pytest_timeout", "hypothesis", "diffusers", "accelerate"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """Absolute paths. `own_python`: the interpreter is this project's; False: a ComfyUI installation's, left as it is."""

    python: Path
    host: Path
    own_python: bool


def ensure(profile: str = "demo") -> Environment:
    """The environment for `profile`, made from nothing where needed. Under a second when it is there.

    Raises SetupError: wrong Python, no venv module, no network, no disk space, COMFYUI_PATH that is no ComfyUI."""
    assert profile in PROFILES, profile
    existing = existing_comfyui()
    if existing == host_folder(cache_dir()) and "COMFYUI_PYTHON" not in os.environ:
        existing = None  # a command inside the environment that starts another one
    python = _python_of_installation(existing)
    if python is not None and existing is not None:
        _check_modules(python, profile)
        return Environment(python=python, host=existing, own_python=False)
    check_this_python()
    cache = cache_dir()
    folder = cache / f"env-py{sys.version_info.major}.{sys.version_info.minor}-{digest(existing)}"
    host = existing or host_folder(cache)
    environment = Environment(python=venv_python(folder), host=host, own_python=True)
    if _is_complete(folder, host, profile):
        return environment
    with setting_up(cache):
        if not _is_complete(folder, host, profile):
            _make(folder, existing, cache, profile)
    return environment


def ensure_oldest() -> Environment:
    """The test environment with the oldest ComfyUI that the pack promises to run in, for tests in the host's process."""
    environment = ensure("test")
    cache = cache_dir()
    host = host_folder(cache, OLDEST)
    if not host.is_dir():
        with setting_up(cache):
            scratch = cache / "scratch"
            scratch.mkdir(parents=True, exist_ok=True)
            try:
                host = fetch_host(cache, environment.python, cache / "set-up.log", scratch, OLDEST)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return dataclasses.replace(environment, host=host)


def setting_up(cache: Path) -> AbstractContextManager[None]:
    """Context in which no other process sets up anything in the cache, which is made if need be; others are waited for."""
    return held(cache / "set-up.lock", lambda: say("  another set-up is running; waiting for it ..."))


def _make(folder: Path, existing: Path | None, cache: Path, profile: str) -> None:
    started = time.monotonic()
    log, scratch = cache / "set-up.log", cache / "scratch"
    log.unlink(missing_ok=True)
    if not _stamp(folder, "demo").is_file() or (folder / "test-started").exists():
        shutil.rmtree(folder, ignore_errors=True)
    missing = [name for name in PROFILES[: PROFILES.index(profile) + 1] if not _stamp(folder, name).is_file()]
    require_free_space(
        cache, sum({"demo": DEMO_DISK_BYTES, "test": TEST_DISK_BYTES}[name] for name in missing), "the environment", CACHE_ADVICE
    )
    say(f"Setting up the {profile} environment in {folder} (once; a few minutes, about 2.3 GB to fetch and 6.5 GB on disk).")
    _mention_older(cache, folder)
    python = venv_python(folder)
    try:
        if "demo" in missing:
            make_venv(folder)
            pip_install(python, locked("build"), "1/3 pip, setuptools, wheel", log, scratch, first=True)
        host = existing or fetch_host(cache, python, log, scratch)
        if "demo" in missing:
            wanted = for_another_host("demo", existing, folder) if existing else locked("demo")
            pip_install(python, wanted, "2/3 torch and ComfyUI's requirements", log, scratch)
            _check_imports(python)
            _write_stamp(folder, "demo", host)
        if "test" in missing:
            (folder / "test-started").touch()
            wanted = for_another_host("test", existing, folder) if existing else locked("test")
            pip_install(python, wanted, "3/3 test and lint tools", log, scratch)
            (folder / "test-started").unlink()
            _write_stamp(folder, "test", host)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"Environment ready after {minutes(time.monotonic() - started)}.")


def pip_install(python: Path, arguments: Sequence[str], title: str, log: Path, scratch: Path, *, first: bool = False) -> None:
    """`first`: the first call of a set-up is small; few retries make a missing network show in seconds. Raises SetupError."""
    patience = ["--retries", "1", "--timeout", "15"] if first else []
    command = ["install", "--progress-bar", "off", *patience, *arguments]
    run_pip(python, command, title=title, log=log, scratch=scratch)


def check_this_python() -> None:
    """Raises SetupError for a Python that torch has no wheels for."""
    here = sys.version_info[:2]
    if not OLDEST_PYTHON <= here <= NEWEST_PYTHON:
        wanted = f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}"
        raise SetupError(
            f"expected Python {wanted}, got {here[0]}.{here[1]} ({sys.executable}); run with another: make PYTHON=python3.12 ..."
        )


def make_venv(folder: Path) -> None:
    """An empty environment of this Python with the pip that came with it. Raises SetupError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    result = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    output = result.stdout + result.stderr
    if "ensurepip" in output or "No module named venv" in output:
        raise SetupError(
            f"expected {sys.executable} to have the venv module with pip, got none; on Debian: apt-get install python3-venv"
        )
    if "No space left" in output:
        raise SetupError(f"no disk space left while making {folder}; free some space and run the same command again")
    raise SetupError(f"could not make a virtual environment in {folder}: {(output.strip().splitlines() or ['no output'])[-1]}")


def _check_imports(python: Path) -> None:
    """A pip that ends well can still leave builds that do not fit one another; the stamp waits for their own word."""
    result = subprocess.run([str(python), "-c", f"import {', '.join(TORCH_TRIO)}"], capture_output=True, text=True)
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise SetupError(
            f"expected torch, torchvision and torchaudio to import together, got: {last}; check which builds pip chose"
        )


def _python_of_installation(host: Path | None) -> Path | None:
    """COMFYUI_PYTHON, else the interpreter that an existing installation keeps beside its source, else None."""
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        if host is None:
            raise SetupError("expected COMFYUI_PATH beside COMFYUI_PYTHON, got none; set both or neither")
        python = Path(shutil.which(named) or named).absolute()
        if not python.is_file():
            raise SetupError(f"expected a Python interpreter in COMFYUI_PYTHON, got {named}; set it right or unset it")
        return python
    if host is None:
        return None
    places = [host / name / part for name in (".venv", "venv") for part in ("bin/python", "Scripts/python.exe")]
    return next((place for place in [*places, host.parent / "python_embeded" / "python.exe"] if place.is_file()), None)


def _check_modules(python: Path, profile: str) -> None:
    wanted = [module for name in PROFILES[: PROFILES.index(profile) + 1] for module in NEEDED_MODULES[name]]
    probe = "import sys, importlib.util as u; print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])"
    result = subprocess.run([str(python), "-c", probe, *wanted], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise SetupError(
            f"expected a working Python in {python}, got: {(result.stderr.strip().splitlines() or ['no output'])[-1]}"
        )
    absent = result.stdout.split()
    if absent:
        raise SetupError(
            f"expected {', '.join(absent)} in the ComfyUI's own Python ({python}), got none; install there, or unset COMFYUI_PATH"
        )


def venv_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _stamp(folder: Path, profile: str) -> Path:
    return folder / f"faithdiff-{profile}.json"


def _is_complete(folder: Path, host: Path, profile: str) -> bool:
    names = PROFILES[: PROFILES.index(profile) + 1]
    return all(_stamp(folder, name).is_file() for name in names) and venv_python(folder).exists() and (host / "main.py").is_file()


def _write_stamp(folder: Path, profile: str, host: Path) -> None:
    temporary = folder / f"faithdiff-{profile}.tmp"
    temporary.write_text(
        json.dumps({"profile": profile, "python": sys.version.split()[0], "host": str(host)}) + "\n", encoding="utf-8"
    )
    os.replace(temporary, _stamp(folder, profile))


def _mention_older(cache: Path, folder: Path) -> None:
    older = [str(other) for other in sorted(cache.glob("env-*")) if other != folder]
    if older:
        say(f"  Environments of other versions are still there; delete them if no clone needs them: {' '.join(older)}")
