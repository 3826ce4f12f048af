"""The last screen of a test run: every part, every failed test with its reason, whatever became of the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hostrun import test_runs
from hostrun.test_summary import MAX_FAILURES, MAX_WIDTH, PartResult, read_report, summary
from support import by_files

SCREEN_LINES = 40
TESTS = """
import pytest

def test_good(): pass

@pytest.mark.parametrize("number", range({failing}))
def test_bad(number):
    assert number < 0, "expected a number below 0, got " + "9" * 300

@pytest.fixture
def broken(): raise OSError("no such server")

def test_of_a_fixture(broken): pass

@pytest.mark.skip(reason="no browser here")
def test_left_out(): pass
"""


def run_of(folder: Path, source: str, *options: str) -> PartResult:
    """What the summary is told of a pytest run over these tests."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_some.py").write_text(source, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *options, "tests"]
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    ended = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True)
    return read_report("part", ended.returncode, 61.0, report)


def test_each_failed_test_has_its_name_and_its_reason(tmp_path):
    result = run_of(tmp_path, TESTS.format(failing=2))
    assert result.counts == Counter(passed=1, failed=3, skipped=1) and not result.passed
    lines = summary("make test", [result], 61.0).splitlines()
    assert "===== make test: 1:01 " in lines[1]
    assert lines[2] == "FAILED  part   1:01  3 failed, 1 passed, 1 skipped"
    assert "  skipped 1: no browser here" in lines
    assert "- part: tests/test_some.py::test_bad[1]" in lines
    assert [line for line in lines if "AssertionError: expected a number below 0, got 9999" in line]
    assert [line for line in lines if "OSError: no such server" in line]
    assert lines[-1] == "1 passed, 3 failed, 1 skipped" and max(map(len, lines)) <= MAX_WIDTH


def test_it_fits_on_a_screen(tmp_path):
    result = run_of(tmp_path, TESTS.format(failing=200))
    lines = summary("make test", [result] * 5, 61.0).splitlines()
    assert len(lines) <= SCREEN_LINES and f"- and {5 * 201 - MAX_FAILURES} more, in build/tests/*.xml" in lines


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("import nothing_of_this_name", (), "pytest ended with code 2"),
        ("def test_good(): pass", ("-k", "nothing"), "pytest ended with code 5"),
        ("def test_good(): pass", ("--no-such-option",), "pytest ended with code 4"),
        ("import os\ndef test_killed(): os._exit(0)", (), "pytest wrote no report"),
        ("import pytest\n@pytest.mark.skip\ndef test_no(): pass", (), "no test ran"),
    ],
)
def test_a_run_without_all_its_tests_is_no_success(tmp_path, source, options, told):
    result = run_of(tmp_path, source, *options)
    assert not result.passed
    assert told in summary("make test", [result], 1.0)


def test_a_part_that_is_not_pytest_is_judged_by_its_code():
    good, bad = (read_report("lint", code, 1.0, None) for code in (0, 1))
    assert good.passed and not bad.passed
    text = summary("make lint", [good, bad], 2.0)
    assert text.splitlines()[-2:] == ["ok      lint   0:01", "FAILED  lint   0:01"]


def test_all_parts_run_and_one_failure_is_the_verdict(monkeypatch, capfd):
    parts = tuple(
        test_runs.Part(name=name, arguments=("-c", f"print('this is {name}'); raise SystemExit({code})"))
        for name, code in (("first", 3), ("second", 0))
    )
    monkeypatch.setitem(test_runs.PARTS, "test", parts)
    assert test_runs.run_tests_command(["test"]) == 1
    printed = capfd.readouterr().out
    assert "this is second" in printed and printed.index("this is first") < printed.index("FAILED  first")
    monkeypatch.setitem(test_runs.PARTS, "test", parts[1:])
    assert test_runs.run_tests_command(["test"]) == 0


def test_what_is_beside_another_part_runs_with_it_and_is_shown_after_it(monkeypatch, capfd, tmp_path):
    """Each of the two waits for the other, so that neither could end alone; the third comes later."""
    wait = (
        "import pathlib, time; pathlib.Path({mine!r}).touch(); print('{name} works')\n"
        "while not pathlib.Path({other!r}).exists(): time.sleep(0.05)"
    )
    files = [str(tmp_path / name) for name in ("one", "two")]
    code = [wait.format(mine=mine, other=other, name=name) for mine, other, name in ((*files, "one"), (*files[::-1], "two"))]
    third = f"import os; assert all(map(os.path.exists, {files!r})); print('three works')"
    parts = tuple(
        test_runs.Part(name=name, arguments=("-c", source), beside=name == "two")
        for name, source in zip(("one", "two", "three"), (*code, third), strict=True)
    )
    monkeypatch.setitem(test_runs.PARTS, "test", parts)
    assert test_runs.run_tests_command(["test"]) == 0
    printed = capfd.readouterr().out
    assert printed.index("one works") < printed.index("=== two") < printed.index("two works") < printed.index("three works")


def test_the_least_that_a_processor_offers_reaches_the_tests(monkeypatch, capfd):
    shown = "import os; print([os.environ.get(name) for name in ('ATEN_CPU_CAPABILITY', 'OMP_NUM_THREADS')])"
    monkeypatch.setitem(test_runs.PARTS, "test", (test_runs.Part(name="part", arguments=("-c", shown)),))
    assert test_runs.run_tests_command(["lowest"]) == 0
    assert "['default', '1']" in capfd.readouterr().out


def test_files_that_ask_one_server_go_to_one_worker():
    """By what they take: the session's fixtures, or the function that all tests of a process share."""
    asking = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^def \w+\([^)]*\b(server|client)\b[,:)]", text, re.MULTILINE):
            asking[path.stem] = "server"
        elif re.search(r"^    server = shared_server\(\)", text, re.MULTILINE):
            asking[path.stem] = "shared_server"
    assert asking == by_files.ON_ONE_SERVER
    scheduler = by_files.ByFilesAndServers.__new__(by_files.ByFilesAndServers)
    scopes = {name: scheduler._split_scope(f"tests/server/{name}.py::test_it") for name in (*asking, "test_summary")}
    assert scopes == {**asking, "test_summary": "tests/server/test_summary.py"}


def test_every_test_is_in_one_run_at_least():
    """Each folder of tests is in `make test` and, for its marked tests, in `make test-long`."""
    folders = {f"tests/{folder}" for folder in ("core", "host", "server", "training", "browser")}
    for what, mark in (("test", "not long"), ("long", "long")):
        marked = [part for part in test_runs.PARTS[what] if part.arguments[-2:] == ("-m", mark)]
        assert {argument for part in marked for argument in part.arguments if argument.startswith("tests/")} >= folders, what
