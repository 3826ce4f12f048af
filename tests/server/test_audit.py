"""The audit of licences and advisories: what is unknown or forbidden fails, and what could not be asked is not called clean."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import audit_advisories
import audit_licences
import pytest
from hostrun.errors import SetupError
from hostrun.paths import cache_dir
from hostrun.pins import versions


def _package(folder: Path, name: str, *fields: str) -> importlib.metadata.Distribution:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *fields, ""]), encoding="utf-8"
    )
    return importlib.metadata.Distribution.at(info)


@pytest.mark.parametrize(
    ("name", "fields", "licence", "allowed"),
    [
        ("a", ["License-Expression: MIT"], "MIT", True),
        ("a", ["License: Apache 2.0 License"], "Apache-2.0", True),
        ("a", ["License: UNKNOWN", "Classifier: License :: OSI Approved :: BSD License"], "BSD-3-Clause", True),
        ("a", ["License-Expression: (MIT OR GPL-3.0-only) AND Zlib"], "(MIT OR GPL-3.0-only) AND Zlib", True),
        ("a", ["License-Expression: Apache-2.0 WITH LLVM-exception"], "Apache-2.0 WITH LLVM-exception", True),
        ("a", ["License-Expression: MIT AND AGPL-3.0-only"], "MIT AND AGPL-3.0-only", False),
        ("a", ["License-Expression: GPL-3.0-only"], "GPL-3.0-only", False),
        ("comfyui-a", ["License-Expression: GPL-3.0"], "GPL-3.0-only", True),
        ("a", ["License: NVIDIA Proprietary Software"], "LicenseRef-NVIDIA-Proprietary", False),
        ("a", ["License-Expression: MIT OR"], "MIT OR", True),
        ("a", ["License-Expression: MIT MIT"], "MIT MIT", False),
        ("a", ["License-Expression: (MIT"], "(MIT", False),
        ("a", ["License: All rights reserved"], None, False),
        ("a", ["License: " + "x" * 300], None, False),
        ("a", [], None, False),
    ],
)
def test_licences(name: str, fields: list[str], licence: str | None, allowed: bool, tmp_path: Path) -> None:
    found = audit_licences.licence_of(_package(tmp_path, name, *fields))
    assert found == licence
    assert audit_licences.is_allowed(name, found) is allowed


@pytest.mark.skipif(
    cache_dir() not in Path(sys.prefix).parents, reason="the Python of somebody else's ComfyUI: what it holds is theirs"
)
def test_everything_that_is_installed_here_has_an_allowed_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_licences.main() == 0, capsys.readouterr().err


def test_a_forbidden_licence_is_one_line_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = _package(tmp_path, "evil", "License-Expression: SSPL-1.0")
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [package])
    assert audit_licences.main() == 1
    assert capsys.readouterr().err == (
        "error: expected a licence that tools/audit_licences.py allows for evil, got SSPL-1.0; read its licence, then add it "
        "there or do without the package\n"
    )


def _answer(monkeypatch: pytest.MonkeyPatch, **vulnerable: list[dict[str, object]]) -> None:
    def ask(requirements: list[str]) -> list[dict[str, object]]:
        names = [line.partition("==")[0] for line in requirements]
        return [{"name": name, "version": "1.0", "vulns": vulnerable.get(name, [])} for name in names]

    monkeypatch.setattr(audit_advisories, "ask", ask)


def test_an_advisory_fails_the_audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _answer(monkeypatch)
    assert audit_advisories.main() == 0
    _answer(monkeypatch, pillow=[{"id": "CVE-0000-0001", "fix_versions": ["99"]}])
    assert audit_advisories.main() == audit_advisories.EXIT_FOUND
    assert "error: pillow 1.0 has CVE-0000-0001, mended in 99; make lock\n" in capsys.readouterr().err


def test_every_locked_version_is_asked_and_no_name_twice_at_once() -> None:
    """Whatever its marker: another Python and another system get other versions."""
    locked = {line.partition(" ;")[0] for part in audit_advisories.PARTS for line in versions(part)}
    asked = audit_advisories.wanted()
    assert sorted(line for lines in asked for line in lines) == sorted(locked)
    assert len(asked) > 1 and all(len({line.partition("==")[0] for line in lines}) == len(lines) for lines in asked)


def test_no_answer_is_not_a_clean_audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(audit_advisories, "ask", lambda lines: [{"name": line, "skip_reason": "not found"} for line in lines])
    assert audit_advisories.main() == audit_advisories.EXIT_NOT_ASKED
    assert capsys.readouterr().err.startswith("not audited: the advisory service cannot be reached")


def test_what_pip_audit_says_is_read_from_its_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(out: str, error: str) -> None:
        done = subprocess.CompletedProcess([sys.executable], 1, stdout=out, stderr=error)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    said(json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}), "noise")
    assert audit_advisories.ask(["a==1"]) == [{"name": "a", "version": "1", "vulns": []}]
    said("", "requests.exceptions.ConnectionError: refused")
    assert audit_advisories.not_known(audit_advisories.ask(["a==1"])) == ["a"]
    said("", "Traceback: something else")
    with pytest.raises(SetupError, match="expected pip-audit to answer, got: Traceback: something else"):
        audit_advisories.ask(["a==1"])
