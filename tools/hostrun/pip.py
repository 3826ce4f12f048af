"""Runs pip in an environment: what it is doing on one line, its whole output in a log, its failures as one clear line."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import SetupError
from .status import Status, working

_NETWORK = re.compile(
    r"connection broken|NewConnectionError|NameResolution|name resolution|Failed to resolve|ConnectTimeout|ReadTimeout|timed out"
    r"|ProxyError|Network is unreachable|Connection refused|Connection reset|Max retries exceeded|SSLError|IncompleteRead"
)
# An index that cannot be reached counts as an empty one, which ends in one of these.
_NOTHING_FOUND = re.compile(r"No matching distribution found|Could not find a version|ResolutionImpossible")
# pip compares every file with the lock before it unpacks it.
_WRONG_HASH = re.compile(r"DO NOT MATCH THE HASHES")
_NO_HASH = re.compile(r"Hashes are required in --require-hashes mode")
_DISK_FULL = re.compile(r"No space left on device|Errno 28|Disk quota exceeded")
_FETCHING = re.compile(r"^\s*(?:Downloading|Using cached) (\S+?)(?:-[^-\s]+)*\.(?:whl|tar\.gz)(?:\s+\(([^)]*)\))?\s*$")
_SIZE = re.compile(r"([\d.]+)\s*(k|M|G)B")
_MB_PER_UNIT = {"k": 1e-3, "M": 1.0, "G": 1e3}


def run_pip(python: Path, arguments: Sequence[str], *, title: str, log: Path, scratch: Path) -> None:
    """`python -m pip ARGUMENTS`, with pip's own configuration as it is. `scratch`: where pip unpacks, on a disk with room.

    Raises SetupError: no network, disk full, or pip's own last word."""
    command = [str(python), "-m", "pip", *arguments]
    scratch.mkdir(parents=True, exist_ok=True)
    # A PYTHONPATH or an activated user site of the caller must not decide what is installed.
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    }
    environment |= {
        "TMPDIR": str(scratch),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    lines: list[str] = []
    with working(title) as status, log.open("a", encoding="utf-8") as log_file:
        log_file.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
        )
        show = _progress_of(status)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log_file.write(line)
                lines.append(line.rstrip())
                show(line)
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code != 0:
            raise SetupError(explain_failure(lines, log))


def explain_failure(lines: Sequence[str], log: Path) -> str:
    """One line for the output of a pip that failed."""
    text = "\n".join(lines)
    if _DISK_FULL.search(text):
        return (
            f"no disk space left while pip was installing; free some space and run the same command again (pip's output: {log})"
        )
    if _WRONG_HASH.search(text):
        what = "expected only files whose sha256 is in tools/lock, got another one"
        return f"{what}; nothing of it was installed, do not use what the index served (pip's output: {log})"
    if _NO_HASH.search(text):
        return f"expected the sha256 of every file in tools/lock, got a line without; run `make lock` (pip's output: {log})"
    errors = (
        [line for line in lines if line.startswith("ERROR:")]
        or [line for line in lines if line.strip()]
        or ["(pip printed nothing)"]
    )
    if _NETWORK.search(text) and (_NETWORK.search(errors[-1]) or _NOTHING_FOUND.search(errors[-1])):
        advice = "check the connection, the proxy or pip's configuration and run again"
        return f"no network: pip cannot reach its package index; {advice} (pip's output: {log})"
    return f"pip failed: {errors[-1].removeprefix('ERROR: ').strip()} (pip's output: {log})"


def _progress_of(status: Status) -> Callable[[str], None]:
    """A function that reads pip's output line by line and keeps `status.detail` true."""
    files, megabytes = 0, 0.0

    def show(line: str) -> None:
        nonlocal files, megabytes
        fetching = _FETCHING.match(line)
        if fetching and ".metadata" not in line:
            size = _SIZE.search(fetching[2] or "")
            files, megabytes = files + 1, megabytes + (float(size[1]) * _MB_PER_UNIT[size[2]] if size else 0.0)
            status.detail = f"file {files}, {megabytes:,.0f} MB so far: {fetching[1]} {fetching[2] or ''}"
        elif line.startswith("Collecting "):
            status.detail = f"resolving {line.split()[1]}"
        elif line.startswith("Installing collected packages:"):
            status.detail = f"unpacking {line.count(',') + 1} packages ({megabytes:,.0f} MB fetched)"

    return show
