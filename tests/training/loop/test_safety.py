"""A full disk, a failed write, numbers that are none, Ctrl-C and SIGTERM: the former checkpoint is never lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.trainer_toy import ToyTask, equal, toy_config, train_part

from training.common import stopping
from training.common.stopping import ECHO_S, Interrupts
from training.loop import checkpoints, loop
from training.loop.run import SaveError
from training.loop.task import Batch, Metrics


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs rights that this user has not")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, leave_bytes: int) -> None:
    """Write a file that leaves so much of the disk."""
    (folder / "filler").unlink(missing_ok=True)
    free_bytes = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(bytes(max(free_bytes - leave_bytes, 0)))


class Filling(ToyTask):
    """Fills the disk at some steps and frees it at others."""

    def __init__(self, config: Any, folder: Path, leave_bytes: dict[int, int]) -> None:
        super().__init__(config)
        self.folder, self.leave_bytes = folder, leave_bytes

    def batch(self, step: int, places: range) -> Batch:
        if step in self.leave_bytes:
            fill(self.folder, leave_bytes=self.leave_bytes[step])
        return super().batch(step, places)


def leftovers(run_dir: Path) -> list[str]:
    return [path.name for path in (run_dir / checkpoints.FOLDER).iterdir() if not path.name.startswith("step-")]


def test_a_full_disk_costs_a_warning_and_the_next_save_succeeds(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = toy_config("steps=6", "save_every=1", "keep_checkpoints=1", "log_every=6")
    # Room until step 2, none for steps 3 and 4, then room again.
    task = Filling(config, small_disk, {2: 2000, 4: 150_000})
    loop.train(task, config, small_disk / "run", extra={}, resume=False)
    printed = capfd.readouterr().err
    assert printed.count("could not be saved") == 2 and "step 3 could not be saved" in printed
    assert checkpoints.load(small_disk / "run")["step"] == 6 and leftovers(small_disk / "run") == []


def test_older_checkpoints_make_room_the_newest_does_not(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = toy_config("steps=4", "save_every=1", "keep_checkpoints=3", "log_every=4")
    task = Filling(config, small_disk, {3: 2000})
    loop.train(task, config, small_disk / "run", extra={}, resume=False)
    assert [path.stem for path in checkpoints.saved_in(small_disk / "run")] == ["step-00000003", "step-00000004"]
    assert "could not be saved" not in capfd.readouterr().err and leftovers(small_disk / "run") == []
    before = (small_disk / "run" / checkpoints.FOLDER / "step-00000004.pt").read_bytes()
    longer = toy_config("steps=7", "save_every=1", "keep_checkpoints=1", "log_every=7")
    # One checkpoint is left: it must not make room for itself, and the run must say so at its end.
    checkpoints.saved_in(small_disk / "run")[0].unlink()
    with pytest.raises(SaveError, match=r"step 7 could not be saved \(.*No space left.*make room and go on with --resume"):
        loop.train(Filling(longer, small_disk, {4: 2000}), longer, small_disk / "run", extra={}, resume=True)
    assert [path.read_bytes() for path in checkpoints.saved_in(small_disk / "run")] == [before]
    assert leftovers(small_disk / "run") == []


def test_a_large_tensor_on_a_full_disk_is_a_full_disk_too(small_disk: Path) -> None:
    # torch's archive writer hides the error of a write that no buffer takes.
    state = {name: {} for name in checkpoints.ENTRIES} | {"step": 1, "trained": {"w": torch.zeros(200_000)}}
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.save(small_disk, state, keep=1)
    assert leftovers(small_disk) == [] and not checkpoints.exists(small_disk)


def test_a_run_that_cannot_even_start_says_so(small_disk: Path) -> None:
    fill(small_disk, leave_bytes=0)
    config = toy_config()
    with pytest.raises(OSError, match="No space left"):
        loop.train(ToyTask(config), config, small_disk / "run", extra={}, resume=False)


def test_other_write_errors_lose_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config("steps=3", "save_every=1")
    train_part(ToyTask(config), config, tmp_path, resume=False, stop_after=1)
    before = checkpoints.saved_in(tmp_path)[0].read_bytes()

    def broken_save(_state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.EIO, "the device has gone")

    monkeypatch.setattr(torch, "save", broken_save)
    with pytest.raises(SaveError, match="step 3 could not be saved .*the device has gone"):
        loop.train(ToyTask(config), config, tmp_path, extra={}, resume=True)
    assert [path.read_bytes() for path in checkpoints.saved_in(tmp_path)] == [before] and leftovers(tmp_path) == []


@pytest.mark.parametrize(("factor", "poisoned"), [(float("nan"), "loss is nan"), (float("inf"), "loss is inf")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path: Path, factor: float, poisoned: str) -> None:
    class Poisoned(ToyTask):
        def loss(self, module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
            loss, figures = super().loss(module, batch)
            return loss * factor, figures

    config = toy_config("steps=5", "save_every=1")
    train_part(ToyTask(config), config, tmp_path, resume=False, stop_after=2)
    before = checkpoints.load(tmp_path)
    with pytest.raises(
        loop.DivergedError, match=f"{poisoned} at step 2; the last checkpoint is kept; go on from it with --resume"
    ):
        loop.train(Poisoned(config), config, tmp_path, extra={}, resume=True)
    assert equal(checkpoints.load(tmp_path), before)


def test_a_gradient_that_is_no_number_stops(tmp_path: Path) -> None:
    class Root(ToyTask):
        def loss(self, module: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
            # The root of 0 has no finite slope.
            return super().loss(module, batch)[0].mul(0.0).sqrt(), {}

    config = toy_config()
    with pytest.raises(loop.DivergedError, match="gradient norm is nan at step 0"):
        loop.train(Root(config), config, tmp_path, extra={}, resume=False)
    assert not checkpoints.exists(tmp_path)


def test_what_a_killed_write_left_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    config = toy_config("steps=3")
    train_part(ToyTask(config), config, tmp_path, resume=False, stop_after=2)
    half = tmp_path / checkpoints.FOLDER / ".step-00000003.abcd.pt"
    half.write_bytes(b"half")
    assert checkpoints.load(tmp_path)["step"] == 2
    loop.train(ToyTask(config), config, tmp_path, extra={}, resume=True)
    assert leftovers(tmp_path) == [] and checkpoints.load(tmp_path)["step"] == 3


def test_a_log_that_cannot_be_written_costs_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").mkdir()
    config = toy_config("steps=2")
    assert loop.train(ToyTask(config), config, tmp_path, extra={}, resume=False)["step"] == 2
    assert capfd.readouterr().err.count("was not written to") == 2


def test_a_failed_tracker_or_validation_does_not_stop_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class NoDisk(ToyTask):
        def validate(self, step: int, folder: Path) -> dict[str, float]:
            raise OSError(errno.ENOSPC, "No space left on device")

    config = toy_config("steps=2", "tracker=tensorboard", "validate_every=1")
    (tmp_path / "tensorboard").write_text("a file where the tracker wants a folder", encoding="utf-8")
    loop.train(NoDisk(config), config, tmp_path, extra={}, resume=False)
    printed = capfd.readouterr().err
    assert printed.count("the tracker failed") == 1 and printed.count("was given up") == 2
    assert checkpoints.load(tmp_path)["step"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_saves(tmp_path: Path, number: int, code: int) -> None:
    class Signalled(ToyTask):
        def batch(self, step: int, places: range) -> Batch:
            if step == 2:
                os.kill(os.getpid(), number)
            return super().batch(step, places)

    config = toy_config("save_every=100", "validate_every=3")
    with pytest.raises(
        loop.Interrupted, match=f"stopped by {signal.Signals(number).name} and saved after 3 steps, go on"
    ) as stop:
        loop.train(Signalled(config), config, tmp_path / "run", extra={}, resume=False)
    assert stop.value.exit_code == code and isinstance(stop.value, KeyboardInterrupt)
    assert checkpoints.load(tmp_path / "run")["step"] == 3
    loop.train(ToyTask(config), config, tmp_path / "run", extra={}, resume=True)
    loop.train(ToyTask(config), config, tmp_path / "whole", extra={}, resume=False)
    assert equal(checkpoints.load(tmp_path / "run")["trained"], checkpoints.load(tmp_path / "whole")["trained"])


def test_the_second_signal_stops_at_once_but_not_a_launchers_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    former = signal.getsignal(signal.SIGINT)
    with Interrupts() as taken:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert taken.received == signal.SIGINT
        now_s[0] += ECHO_S + 0.1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.value.code == 143
    assert signal.getsignal(signal.SIGINT) is former
