"""What is installed, to the byte: tools/lock/*.txt list exact versions with the sha256 of every file of them.

    build.txt   pip, setuptools, wheel: they install the rest
    demo.txt    torch and ComfyUI's requirements
    test.txt    what `make test`, `make lint` and the trainer need beside them
    audit.txt   the tools of `make audit`, `make sbom` and `make lock`, in an environment of their own

tools/write_lock.py writes them. Torch, torchvision and torchaudio have to match one another: the host imports all three.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from .paths import TOOLS
from .source import CURRENT

LOCKS = TOOLS / "lock"
TEST_REQUIREMENTS = TOOLS / "requirements-test.txt"
TORCH_TRIO = ("torch", "torchvision", "torchaudio")


def lock_path(part: str) -> Path:
    return LOCKS / f"{part}.txt"


def locked(part: str) -> list[str]:
    """pip's arguments for one lock: only files whose sha256 it lists, nothing beside them, no source archive's code run."""
    return ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--requirement", str(lock_path(part))]


def versions(part: str) -> list[str]:
    """The lines of one lock without hashes: `name==version`, with its marker if it has one."""
    lines = lock_path(part).read_text(encoding="utf-8").splitlines()
    return [line.removesuffix("\\").rstrip() for line in lines if re.match(r"[A-Za-z0-9]", line)]


def for_another_host(profile: str, host: Path, folder: Path) -> list[str]:
    """pip's arguments where the ComfyUI is not ours: its own requirements decide, and the lock only over what they leave open.

    They name no hashes, so none can be asked for. Writes the versions that count into `folder`."""
    theirs = set(names((host / "requirements.txt").read_text(encoding="utf-8"))) - set(TORCH_TRIO)
    wanted = (set(names(TEST_REQUIREMENTS.read_text(encoding="utf-8"))) | set(TORCH_TRIO)) - theirs
    lines = [line for part in ("demo", "test") for line in versions(part) if set(names(line)) & wanted]
    path = folder / "constraints.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    own = {
        "demo": [*TORCH_TRIO, "--requirement", str(host / "requirements.txt")],
        "test": ["--requirement", str(TEST_REQUIREMENTS)],
    }
    return ["--constraint", str(path), *own[profile]]


def names(requirements: str) -> list[str]:
    """The packages that a requirements file names, as an index spells them."""
    found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", requirements, flags=re.MULTILINE)
    return [re.sub(r"[-_.]+", "-", name).lower() for name in found]


def digest(existing: Path | None) -> str:
    """Names the environment of these locks, for our own host or for an `existing` ComfyUI."""
    host = (existing / "requirements.txt").read_bytes() if existing else CURRENT.sha256.encode()
    return digest_of(("build", "demo", "test"), TEST_REQUIREMENTS.read_bytes(), host)


def digest_of(parts: Iterable[str], *more: bytes) -> str:
    """10 hex digits of the sha256 over some locks, this kind of machine, and `more`."""
    machine = f"{platform.system()}-{platform.machine()}".encode()
    contents = [*(lock_path(part).read_bytes() for part in parts), *more, machine]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:10]
