"""tools/lock/: complete, without addresses, what this environment was installed from, and pip refuses what it does not list."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import sys
import zipfile
from pathlib import Path

import pytest
from hostrun import pins
from hostrun.errors import SetupError
from hostrun.paths import cache_dir
from hostrun.pip import run_pip
from hostrun.source import host_folder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PARTS = ("build", "demo", "test", "audit")
INSTALLED = {canonicalize_name(one.metadata["Name"]): one for one in importlib.metadata.distributions()}


def _locked(*parts: str) -> dict[str, str]:
    """{name: version} of what this Python on this system gets."""
    found = [Requirement(line) for part in parts for line in pins.versions(part)]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate()
    }


@pytest.mark.parametrize("part", PARTS)
def test_every_version_is_exact_and_hashed_and_no_index_is_named(part: str) -> None:
    text = pins.lock_path(part).read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins.versions(part)) >= 4
    for block in blocks:
        head, *hashes = [line.strip().removesuffix("\\").strip() for line in block.strip().splitlines()]
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.!+]+( ; .+)?", head), head
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), head


def test_the_lock_satisfies_what_asks_for_it() -> None:
    locked = _locked("build", "demo", "test")
    host = host_folder(cache_dir()) / "requirements.txt"  # the one that the lock is for; the tests may run in another
    if not host.is_file():
        pytest.skip("the tested ComfyUI is not this project's own")
    asked = host.read_text(encoding="utf-8") + pins.TEST_REQUIREMENTS.read_text(encoding="utf-8")
    wanted = [Requirement(line) for line in asked.splitlines() if line.strip() and not line.startswith("#")]
    assert len(wanted) > 40
    lacking = [str(one) for one in wanted if not one.specifier.contains(locked.get(canonicalize_name(one.name), "0"))]
    assert lacking == []


own_environment = pytest.mark.skipif(
    cache_dir() not in Path(sys.prefix).parents, reason="the Python of somebody else's ComfyUI: what it holds is theirs"
)


@own_environment
def test_this_environment_holds_the_locked_versions_and_nothing_else() -> None:
    assert {name: one.version for name, one in INSTALLED.items()} == _locked("build", "demo", "test")


@own_environment
def test_what_is_installed_has_what_it_needs() -> None:
    """pip is told to look for no dependencies of its own, so the lock has to be complete."""
    lacking = [
        f"{name}: {line}" for name, one in INSTALLED.items() for line in one.requires or [] if not _is_met(Requirement(line))
    ]
    assert lacking == []


def _is_met(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return True
    found = INSTALLED.get(canonicalize_name(wanted.name))
    return found is not None and wanted.specifier.contains(found.version, prereleases=True)


@pytest.mark.parametrize("tampered", [False, True])
def test_a_file_that_the_lock_does_not_list_is_refused(tampered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = _wheel(tmp_path)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(pins, "LOCKS", tmp_path)
    pins.lock_path("demo").write_text(f"faithdiff-probe==1.0 \\\n    --hash=sha256:{digest}\n", encoding="utf-8")
    if tampered:
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("faithdiff_probe_more.py", "")
    target = tmp_path / "target"
    options = ["install", "--no-index", "--find-links", str(tmp_path), "--target", str(target), *pins.locked("demo")]
    if not tampered:
        run_pip(Path(sys.executable), options, title="probe", log=tmp_path / "log", scratch=tmp_path)
        assert (target / "faithdiff_probe.py").is_file()
        return
    with pytest.raises(SetupError, match="expected only files whose sha256 is in tools/lock, got another one; nothing of it was"):
        run_pip(Path(sys.executable), options, title="probe", log=tmp_path / "log", scratch=tmp_path)
    assert not target.exists() or not list(target.iterdir())


def test_a_version_without_a_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _wheel(tmp_path)
    monkeypatch.setattr(pins, "LOCKS", tmp_path)
    pins.lock_path("demo").write_text("faithdiff-probe==1.0\n", encoding="utf-8")
    options = ["install", "--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "x"), *pins.locked("demo")]
    with pytest.raises(SetupError, match="expected the sha256 of every file in tools/lock, got a line without; run `make lock`"):
        run_pip(Path(sys.executable), options, title="probe", log=tmp_path / "log", scratch=tmp_path)


def test_another_comfyui_decides_over_its_own_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("torch\nnumpy>=1.25.0\ncomfyui-frontend-package==9.9.9\naccelerate==9.9\n")
    arguments = pins.for_another_host("demo", tmp_path, tmp_path)
    assert "--require-hashes" not in arguments  # its requirements name none
    text = Path(arguments[arguments.index("--constraint") + 1]).read_text()
    pinned = {line.split("==")[0] for line in text.splitlines()}
    assert {"torch", "torchvision", "torchaudio", "pytest", "diffusers"} <= pinned
    assert not {"numpy", "comfyui-frontend-package", "accelerate"} & pinned


def _wheel(folder: Path) -> Path:
    """The smallest wheel that pip installs."""
    info = "faithdiff_probe-1.0.dist-info"
    files = {
        "faithdiff_probe.py": b"",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: faithdiff-probe\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_record_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / "faithdiff_probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _record_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
