"""Temporary files: those of dead writers go, those of living ones stay, wherever they write and whatever the disk can lock."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import lock_descriptor

from training.common import files
from training.common.files import (
    HERE,
    OTHERS_AGE_S,
    UNFINISHED,
    claim,
    remove_abandoned,
    remove_leftovers,
    write_atomically,
    write_text,
)
from training.loop import checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_dead_writers_left_goes_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    dead = [tmp_path / name for name in (f".a{UNFINISHED}{HERE}12345678.json", f".b{UNFINISHED}{HERE}x.png")]
    living, others = tmp_path / f".c{UNFINISHED}{HERE}x.pt", [tmp_path / ".hidden", tmp_path / ".movie.part-1"]
    for path in [*dead, living, *others]:
        path.write_bytes(b"half")
    handle = os.open(living, os.O_RDWR)
    assert claim(handle, living)
    write_text(tmp_path / "a.json", "whole")
    assert names(tmp_path) == sorted([living.name, *(path.name for path in others), "a.json"])
    os.close(handle)
    remove_leftovers(tmp_path)
    assert not living.exists() and all(path.exists() for path in others)


def test_a_file_that_is_being_written_is_never_taken_for_a_leftover(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("whole", encoding="utf-8")
        remove_leftovers(tmp_path, only_user=True)

    write_atomically(tmp_path / "x.txt", write)
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "whole"


def test_a_file_swept_before_it_was_claimed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep of another process comes between a writer's making of its file and its lock."""
    claimed = []

    def late(handle: int, path: Path) -> bool:
        if not claimed:
            remove_abandoned(path)
        claimed.append(claim(handle, path))
        return claimed[-1]

    monkeypatch.setattr(files, "claim", late)
    write_text(tmp_path / "x.txt", "whole")
    assert claimed == [False, True] and names(tmp_path) == ["x.txt"]


def test_a_sweep_deletes_nothing_that_it_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the lock was let go before the deletion, a writer could take it in between, and lose its file."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    held_then = []
    unlink = Path.unlink

    def watched(self: Path, missing_ok: bool = False) -> None:
        with self.open("rb+") as other:
            held_then.append(not lock_descriptor(other.fileno(), blocking=False))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    remove_abandoned(path)
    assert held_then == [True] and not path.exists()


def test_young_files_of_other_machines_stay(tmp_path: Path) -> None:
    """Their locks may not be seen from here."""
    young, old = (tmp_path / f".{name}{UNFINISHED}00000000-x.pt" for name in "ab")
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - OTHERS_AGE_S - 60))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [young.name]


def test_a_run_that_goes_on_clears_its_folder_whoever_was_killed_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / checkpoints.FOLDER, tmp_path / checkpoints.VALIDATION):
        folder.mkdir(exist_ok=True)
        (folder / f".log{UNFINISHED}00000000-x.jsonl").write_bytes(b"half")
    checkpoints.tidy(tmp_path, 0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_longest_name_has_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("\U0001d54f" * 62 + ".png")  # 4 bytes each: 252 of the 255 that a name may have
    write_text(path, "whole")
    assert names(tmp_path) == [path.name]
