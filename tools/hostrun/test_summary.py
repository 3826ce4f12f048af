"""What came of every part, and of every failed test the one line that says why."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .status import minutes

MAX_FAILURES = 12
"""Two lines each; with a line for every part this fits on a screen of 40 lines."""
MAX_WIDTH = 160
PYTEST_ENDED = (0, 1)
"""pytest's exit codes with a report of all its tests; 2 to 5: stopped, broken, wrong options, no test at all."""


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """`counts`: passed, failed, skipped (empty where no tests are counted). `failures`: (test, its first line of complaint)."""

    name: str
    exit_code: int
    took_s: float
    counts: Counter[str] = field(default_factory=Counter)
    failures: tuple[tuple[str, str], ...] = ()
    skipped_because: Counter[str] = field(default_factory=Counter)
    broken: str = ""
    """Why there is no report of all its tests; empty where there is one."""

    @property
    def passed(self) -> bool:
        return self.exit_code == 0 and not self.broken


def read_report(name: str, exit_code: int, took_s: float, report: Path | None) -> PartResult:
    """Of a finished process and the JUnit file that pytest wrote. `report` None: not pytest."""
    if report is None:
        return PartResult(name=name, exit_code=exit_code, took_s=took_s)
    broken = "" if exit_code in PYTEST_ENDED else f"pytest ended with code {exit_code} before all its tests had run; see above"
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - written by the pytest that has just ended
    except (OSError, ElementTree.ParseError):
        return PartResult(name=name, exit_code=exit_code, took_s=took_s, broken=broken or "pytest wrote no report; see above")
    counts: Counter[str] = Counter()
    failures, skipped_because = [], Counter[str]()
    for case in cases:
        complaints = [child for child in case if child.tag in ("failure", "error")]
        skips = [child for child in case if child.tag == "skipped"]
        if complaints:
            counts["failed"] += 1
            failures.append((_test_of(case), _first_line(complaints[0])))
        elif skips:
            counts["skipped"] += 1
            skipped_because[_first_line(skips[0])] += 1
        else:
            counts["passed"] += 1
    if not broken and not counts["passed"] + counts["failed"]:
        broken = "no test ran"
    return PartResult(
        name=name, exit_code=exit_code, took_s=took_s, counts=counts, failures=tuple(failures),
        skipped_because=skipped_because, broken=broken,
    )  # fmt: skip


def summary(title: str, results: Sequence[PartResult], took_s: float) -> str:
    """The last screen: a line for every part, two for every failed test, and a closing line of plain numbers."""
    lines = ["", f"===== {title}: {minutes(took_s)} ".ljust(78, "=")]
    width = max(len(result.name) for result in results)
    for result in results:
        told = [f"{result.counts[word]} {word}" for word in ("failed", "passed", "skipped") if result.counts[word]]
        verdict = "ok    " if result.passed else "FAILED"
        lines.append(f"{verdict}  {result.name.ljust(width)}  {minutes(result.took_s):>5}  {', '.join(told)}".rstrip())
        if result.broken:
            lines.append(f"        {result.broken}")
    skips = sum((result.skipped_because for result in results), Counter[str]())
    lines += [_cut(f"  skipped {count}: {why}") for why, count in skips.most_common(3)]
    failures = [(result.name, *failure) for result in results for failure in result.failures]
    for name, test, complaint in failures[:MAX_FAILURES]:
        lines += [_cut(f"- {name}: {test}"), _cut(f"      {complaint}")]
    if len(failures) > MAX_FAILURES:
        lines.append(f"- and {len(failures) - MAX_FAILURES} more, in build/tests/*.xml")
    counted = sum((result.counts for result in results), Counter[str]())
    if counted:
        lines.append(f"{counted['passed']} passed, {counted['failed']} failed, {counted['skipped']} skipped")
    return "\n".join(lines)


def _test_of(case: ElementTree.Element) -> str:
    """The way to name it to pytest again: a JUnit file has `tests.host.test_a` and `test_b[1]`."""
    module, name = case.get("classname") or "", case.get("name") or ""
    return f"{module.replace('.', '/')}.py::{name}" if module else name


def _first_line(child: ElementTree.Element) -> str:
    text = (child.get("message") or child.text or "").strip()
    return text.splitlines()[0].strip() if text else "(no message)"


def _cut(line: str) -> str:
    return line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 3] + "..."
