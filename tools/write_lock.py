"""Writes tools/lock/*.txt anew (`make lock`): exact versions and the sha256 of every file of them, for all systems and Pythons.

    write_lock.py              what the requirements ask for now; versions that still fit stay
    write_lock.py --upgrade    the newest versions that fit

Runs in the environment of the audit tools (environment.py --with audit), whose `uv` resolves. To raise one version, change its
line in tools/lock/ by hand (the hashes may stay wrong) and run this."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from hostrun.environment import OLDEST_PYTHON, setting_up
from hostrun.errors import SetupError, run_command
from hostrun.paths import TOOLS, cache_dir
from hostrun.pins import LOCKS, TEST_REQUIREMENTS, TORCH_TRIO, lock_path, names
from hostrun.source import fetch_host

BUILD_TOOLS = ("pip", "setuptools", "wheel")
AUDIT_REQUIREMENTS = TOOLS / "requirements-audit.txt"
PARTS = {
    "build": "pip and what it needs to read a source archive: installed first",
    "demo": "torch and ComfyUI's requirements",
    "test": "what `make test`, `make lint` and the trainer need beside demo.txt",
    "audit": "the tools of `make audit`, `make sbom` and `make lock`",
}
HEAD = "# {}. Written by tools/write_lock.py (`make lock`); every file is checked against its sha256 when it is installed.\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="write_lock.py", description="Write tools/lock/*.txt anew.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit, not those that are locked")
    upgrade = parser.parse_args().upgrade
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:  # in the cache: the host is moved from there, which needs one disk
        scratch = Path(temporary)
        with setting_up(cache):
            host = fetch_host(cache, Path(sys.executable), cache / "set-up.log", scratch) / "requirements.txt"
        known = {part: "" if upgrade else locked_text(part) for part in PARTS}
        # All that is installed side by side is resolved together, and then divided.
        together = known["build"] + known["demo"] + known["test"]
        everything = compile_lock([*BUILD_TOOLS, *TORCH_TRIO], [host, TEST_REQUIREMENTS], scratch, known=together)
        demo = compile_lock([*BUILD_TOOLS, *TORCH_TRIO], [host], scratch, limits=everything)
        build = compile_lock([*BUILD_TOOLS], [], scratch, limits=everything)
        audit = compile_lock([*BUILD_TOOLS], [AUDIT_REQUIREMENTS], scratch, known=known["audit"], limits=build)
    blocks: dict[str, dict[str, str]] = {part: {} for part in PARTS}
    for line, block in everything.items():
        blocks["build" if _is_of(line, build) else "demo" if _is_of(line, demo) else "test"][line] = block
    blocks["audit"] = {line: block for line, block in audit.items() if not _is_of(line, blocks["build"])}
    LOCKS.mkdir(exist_ok=True)
    for part, title in PARTS.items():
        temporary_path = lock_path(part).with_suffix(".tmp")
        temporary_path.write_text(HEAD.format(title) + "".join(blocks[part].values()), encoding="utf-8")
        os.replace(temporary_path, lock_path(part))
    print(", ".join(f"{len(found)} in {part}.txt" for part, found in blocks.items()))
    return 0


def locked_text(part: str) -> str:
    path = lock_path(part)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def compile_lock(
    wanted: list[str], files: list[Path], scratch: Path, *, known: str = "", limits: Iterable[str] = ()
) -> dict[str, str]:
    """uv's answer in blocks: {first line: the whole block with its hashes}.

    Args:
        known: the lock whose versions stay where they fit.
        limits: first lines of blocks whose versions must stay.

    Raises:
        SetupError: no network, or requirements that contradict one another.
    """
    wanted_path, limits_path, answer = (scratch / f"{name}.txt" for name in ("wanted", "limits", "answer"))
    wanted_path.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    limits_path.write_text("".join(line.replace("\\", "") for line in limits), encoding="utf-8")
    answer.write_text(known, encoding="utf-8")  # uv keeps the versions that it finds in its output file
    command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--generate-hashes", "--only-binary", ":all:"]
    command += ["--python-version", ".".join(map(str, OLDEST_PYTHON)), "--no-annotate", "--no-header", "--no-emit-index-url"]
    command += ["--no-emit-find-links", "--quiet", "--output-file", str(answer), "--constraint", str(limits_path)]
    command += [str(wanted_path), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SetupError(f"expected uv to resolve the requirements, got: {' '.join(done.stderr.split())[-400:]}")
    blocks: dict[str, str] = {}
    line = ""
    for text in answer.read_text(encoding="utf-8").splitlines(keepends=True):
        if re.match(r"[A-Za-z0-9]", text):
            line = text
            blocks[line] = ""
        if line:
            blocks[line] += text
    return blocks


def _is_of(line: str, blocks: dict[str, str]) -> bool:
    return set(names(line)) <= set(names("".join(blocks)))


if __name__ == "__main__":
    sys.exit(run_command(main))
