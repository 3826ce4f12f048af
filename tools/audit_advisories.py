"""Asks whether any locked version has a known vulnerability; part of `make audit`. Runs in the environment of the audit tools.

Exit code 1: one has. Exit code 3: the advisories could not be had for every package, which is no clean audit."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hostrun.errors import SetupError, run_command
from hostrun.pins import versions
from packaging.requirements import Requirement

PARTS = ("build", "demo", "test", "audit")
PROBE = "packaging"
"""Any package tells whether advisories can be had."""
EXIT_FOUND, EXIT_NOT_ASKED = 1, 3
TIMEOUT_S = 30


def main() -> int:
    if not_known(ask([line for line in versions("build") if line.startswith(f"{PROBE}==")])):
        sys.stderr.write("not audited: the advisory service cannot be reached, or this index has none; run it where it can be\n")
        return EXIT_NOT_ASKED
    answers = [one for requirements in wanted() for one in ask(requirements)]
    for one in answers:
        for advisory in one.get("vulns", []):
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            sys.stderr.write(f"error: {one['name']} {one['version']} has {advisory['id']}, mended in {fixed}; make lock\n")
    unknown, found = not_known(answers), sum(len(one.get("vulns", [])) for one in answers)
    print(f"{len(answers) - len(unknown)} packages audited, {found} vulnerabilities, {len(unknown)} packages not audited")
    if unknown:
        sys.stderr.write(f"not audited: {', '.join(unknown)}\n")
    return EXIT_FOUND if found else EXIT_NOT_ASKED if unknown else 0


def wanted() -> list[list[str]]:
    """Every locked version, for whatever Python and system, as lists of `name==version`: no name twice in one, which pip-audit
    refuses."""
    found: dict[str, dict[str, None]] = {}
    for requirement in (Requirement(line) for part in PARTS for line in versions(part)):
        found.setdefault(requirement.name, {})[f"{requirement.name}{requirement.specifier}"] = None
    return [[line for line in lines if line] for lines in itertools.zip_longest(*found.values())]


def ask(requirements: list[str]) -> list[dict[str, Any]]:
    """pip-audit's word on each: {name, version, vulns}, or {name, skip_reason}.

    Raises:
        SetupError: pip-audit itself fails, otherwise than for want of a network.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            str(path),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
        ]
        command += ["--progress-spinner", "off", "--timeout", str(TIMEOUT_S)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.stdout.strip():
        return json.loads(done.stdout)["dependencies"]
    if "ConnectionError" in done.stderr or "ServiceError" in done.stderr or "Timeout" in done.stderr:
        return [{"name": line.partition("==")[0], "skip_reason": "no connection"} for line in requirements]
    raise SetupError(f"expected pip-audit to answer, got: {' '.join(done.stderr.split())[-300:]}")


def not_known(answers: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in answers if "skip_reason" in one]


if __name__ == "__main__":
    sys.exit(run_command(main))
