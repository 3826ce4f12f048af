"""The watch over hostile files sees what it is there for: otherwise a clean report would say nothing."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import guard
from fuzz.target import Tally, Target, throw_many
from hypothesis import strategies as st


def tally_of(read: Callable[[bytes, Path], object], folder: Path) -> Tally:
    target = Target(name="bad", cases=st.just(b"case"), read=read, short=1)
    tally = Tally()
    throw_many(target, folder, cases=1, number=0, tally=tally)
    return tally


def refuse(text: str) -> None:
    raise ValueError(text)


def take_memory(size_bytes: int) -> None:
    """From the kernel: an allocator may have as much left of what this process had before, and none would be added."""
    with mmap.mmap(-1, size_bytes) as memory:
        memory[:: mmap.PAGESIZE] = b"x" * (size_bytes // mmap.PAGESIZE)


MISDEEDS: dict[str, tuple[Callable[[bytes, Path], object], str]] = {
    "writes elsewhere": (lambda _, folder: (folder.parent / "out").write_text("x"), r"open\(.*out\)"),
    "moves away": (lambda _, folder: os.rename(folder / "in", folder.parent / "in"), r"os.rename\(.*in\)"),
    "starts a program": (
        lambda *_: subprocess.run([sys.executable, "--version"], capture_output=True, check=True),
        "subprocess.Popen",
    ),
    "memory": (lambda *_: take_memory(200 * 2**20), "resident memory grew by 2.. MiB for a file of 4 bytes"),
}
ENDS: dict[str, Callable[[], object]] = {
    "taken": lambda: None,
    "refused": lambda: refuse("expected more, got less, get it again"),
    "another error": lambda: {}["x"],
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
@pytest.mark.parametrize("end", ENDS)
def test_misdeeds_are_seen_however_the_reader_ends(misdeed: str, end: str, tmp_path: Path) -> None:
    if misdeed == "memory" and not Path("/proc/self/clear_refs").exists():
        pytest.skip("this kernel does not tell a process's high-water mark")
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "in").touch()
    does, told = MISDEEDS[misdeed]

    def read(case: bytes, folder: Path) -> None:
        does(case, folder)
        ENDS[end]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "MAX_TIMES_SIZE", 1)
        tally = tally_of(read, tmp_path / "case")
    assert (tally.taken, tally.refused, tally.failed, len(tally.failures)) == (0, 0, 1, 1)
    assert re.search(told, tally.report()), tally.report()


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda *_: refuse("bad"), "not a message of ours"),
        (lambda *_: refuse("expected one line, got one\ntwo"), "more than one line"),
        (lambda *_: {}["x"], "KeyError"),
    ],
    ids=["message", "two lines", "another error"],
)
def test_bad_ends_are_seen(read: Callable[[bytes, Path], object], told: str, tmp_path: Path) -> None:
    tally = tally_of(read, tmp_path)
    assert (tally.failed, len(tally.failures)) == (1, 1)
    assert re.search(told, tally.report()), tally.report()


def test_a_case_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_CPU_S", 0.05)

    def read(_: bytes, __: Path) -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: S112 - what a reader may have around its loop
                continue

    assert "Hang" in tally_of(read, tmp_path).report()


def test_sound_readers_leave_no_failure(tmp_path: Path) -> None:
    taken = tally_of(lambda case, folder: (folder / "case").write_bytes(case), tmp_path)
    refused = tally_of(lambda *_: refuse("expected more, got less, get it again"), tmp_path)
    assert (taken.taken, taken.refused, refused.taken, refused.refused) == (1, 0, 0, 1)
    assert not taken.failures and not refused.failures
