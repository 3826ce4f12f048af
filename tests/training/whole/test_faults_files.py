"""Files that are damaged or left behind, and clocks that run backwards: seen, told once, and nothing whole is lost."""

from __future__ import annotations

import errno
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainer_toy import ToyTask, equal, toy_config, train_part

from faithdiff_core.files.storage import write_safetensors
from training.batches.latent_cache import open_latent_cache
from training.batches.store import ImageStore
from training.common import tensor_files
from training.config.schema import TrainConfig
from training.data import manifest
from training.loop import checkpoints, loop
from training.model.networks import build_vae, network_spec

Quick = Callable[..., TrainConfig]
ORDER_SEED = 20


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("run")
    config = toy_config("keep_checkpoints=2")
    train_part(ToyTask(config), config, folder, resume=False, stop_after=4)
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            (to / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(folder)).write_bytes(path.read_bytes())
    return to


def held(run_dir: Path) -> dict[str, Any]:
    """The state that `load` gives, on a storage of its own: the file is damaged under it here."""
    state = checkpoints.load(run_dir)
    return {name: {key: v.clone() for key, v in state[name].items()} for name in ("model", "ema")} | {"step": state["step"]}


def test_no_flipped_byte_and_no_cut_goes_unseen(two_checkpoints: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """80 damages, anywhere in the newest checkpoint: its own values, or those of the one before and one warning; never others."""
    run_dir = copy_of(two_checkpoints, tmp_path)
    older, newest = checkpoints.saved_in(run_dir)
    whole = held(run_dir)
    content = newest.read_bytes()
    newest.unlink()
    before = held(run_dir)
    drawn = random.Random(ORDER_SEED)
    passed_over = 0
    for _ in range(80):
        damaged = bytearray(content)
        if drawn.random() < 0.2:
            del damaged[drawn.randrange(len(content)) :]
        else:
            damaged[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        newest.write_bytes(damaged)
        capfd.readouterr()
        found = held(run_dir)
        if found["step"] == 2:
            passed_over += 1
            assert equal(found, before) and capfd.readouterr().err.count("step-00000004.pt is damaged") == 1
        else:
            assert equal(found, whole)
    assert passed_over > 50, "padding and unread fields are a small part of the file"
    assert older.is_file()


def test_flipped_frozen_weights_are_seen(two_checkpoints: Path, tmp_path: Path) -> None:
    run_dir = copy_of(two_checkpoints, tmp_path)
    content = bytearray((run_dir / checkpoints.FROZEN).read_bytes())
    content[-1] ^= 1
    (run_dir / checkpoints.FROZEN).write_bytes(content)
    with pytest.raises(ValueError, match="got .*frozen.safetensors with another checksum, start the run afresh"):
        checkpoints.load(run_dir)


def test_checkpoints_of_earlier_versions_are_read(two_checkpoints: Path, tmp_path: Path) -> None:
    run_dir = copy_of(two_checkpoints, tmp_path)
    path = checkpoints.saved_in(run_dir)[-1]
    state = torch.load(path, weights_only=True)
    tensor_files.write_archive(path, {name: state[name] for name in checkpoints.ENTRIES})
    config = toy_config("keep_checkpoints=2")
    assert loop.train(ToyTask(config), config, run_dir, extra={}, resume=True)["step"] == 6


def test_the_clock_does_not_decide_which_checkpoint_is_newest(two_checkpoints: Path, tmp_path: Path) -> None:
    run_dir = copy_of(two_checkpoints, tmp_path)
    os.utime(run_dir / checkpoints.FOLDER / "step-00000004.pt", (0, 0))
    os.utime(run_dir / checkpoints.FOLDER / "step-00000002.pt", (2**33, 2**33))
    assert checkpoints.load(run_dir)["step"] == 4


def test_a_run_goes_on_while_the_clock_runs_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    config = toy_config("steps=4", "validate_every=2", "tracker=tensorboard")
    for stop in (2, 4):
        train_part(ToyTask(config), config, tmp_path / "run", resume=True, stop_after=stop)
    monkeypatch.undo()
    loop.train(ToyTask(config), config, tmp_path / "whole", extra={}, resume=False)
    assert equal(checkpoints.load(tmp_path / "run")["trained"], checkpoints.load(tmp_path / "whole")["trained"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and all(row["images_per_s"] > 0 for row in rows)


NOT_NOW = {
    "handles": (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    "server": (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    # ATen/MapAllocator.cpp, with little address space (RLIMIT_AS)
    "memory": (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), "Cannot allocate memory"),
}


@pytest.mark.parametrize("kind", NOT_NOW)
def test_a_checkpoint_that_cannot_be_read_now_is_not_passed_over(
    kind: str, two_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on from the one before would delete it."""
    run_dir = copy_of(two_checkpoints, tmp_path)
    error, told = NOT_NOW[kind]

    def not_now(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(*((torch, "load") if kind == "memory" else (zipfile, "ZipFile")), not_now)
    config = toy_config("keep_checkpoints=2")
    with pytest.raises(OSError, match=f"{told}.*step-00000004.pt"):
        loop.train(ToyTask(config), config, run_dir, extra={}, resume=True)
    assert len(checkpoints.saved_in(run_dir)) == 2


def test_torch_says_what_the_system_said_as_it_is_read_here(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        torch.UntypedStorage.from_file(str(tmp_path / "none"), False, 9)
    found = tensor_files.system_error(error.value, tmp_path / "none")
    assert found is not None and found.errno == errno.ENOENT and found.filename == str(tmp_path / "none")


@pytest.mark.parametrize("kind", ["handles", "memory"])
def test_frozen_weights_that_cannot_be_read_now_are_not_called_damaged(
    kind: str, two_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copy_of(two_checkpoints, tmp_path)
    error, told = NOT_NOW[kind]

    def not_now(path: Path) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "load_file", not_now)
    with pytest.raises(OSError, match=told):
        checkpoints.load(run_dir)


def test_a_row_that_a_kill_cut_off_after_its_checkpoint_is_written_later(tmp_path: Path) -> None:
    config = toy_config("steps=4", "validate_every=2")
    loop.train(ToyTask(config), config, tmp_path, extra={}, resume=False)
    log = tmp_path / "log.jsonl"
    whole = log.read_text(encoding="utf-8")
    rows = whole.splitlines(keepends=True)
    assert "validation/features" in rows[-1]
    # Bytes that are no text are what a crash of the whole machine may leave.
    for rest in (b"", rows[-1][:-3].encode(), rows[-1].strip().encode(), b"\xff\xfe\x00"):
        log.write_bytes("".join(rows[:-1]).encode() + rest)
        (tmp_path / "validation" / "step-00000004.txt").unlink()
        figures = loop.train(ToyTask(config), config, tmp_path, extra={}, resume=True)
        assert figures == json.loads(rows[-1]) and log.read_text(encoding="utf-8") == whole
        assert (tmp_path / "validation" / "step-00000004.txt").is_file()


def test_a_killed_writer_of_weights_leaves_nothing_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    child = os.fork()
    if not child:
        try:
            from faithdiff_core.files import storage

            # The format's writer has its own temporary file beside the one it is given.
            storage.save_file = lambda _state, partial, **_: (partial.with_name(".tmpAbCd").write_bytes(b"half"), os._exit(9))
            write_safetensors(path, {"a": torch.zeros(4)}, {})
        finally:
            os._exit(1)  # else it would go on as a second pytest
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert ".tmpAbCd" in [item.name for item in tmp_path.rglob("*")] and not path.exists()
    write_safetensors(path, {"a": torch.zeros(4)}, {})
    assert [item.name for item in tmp_path.rglob("*")] == ["x.safetensors"]


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    header = {f"faithdiff.{name}": '"ä\n\x7f' for name in "cafebd"}
    for name in ("a", "b", "c"):
        write_safetensors(tmp_path / name, {"w": torch.arange(3.0)}, header)
    assert len({(tmp_path / name).read_bytes() for name in ("a", "b", "c")}) == 1


def test_a_flipped_byte_in_the_bank_of_latents_makes_it_anew(
    quick: Quick, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = quick("nano-align", "latent_crops=6")
    torch.manual_seed(0)
    vae = build_vae(network_spec("tiny")).eval()
    store = ImageStore(manifest.read(data), short_side_px=96, cache_bytes=10**8)

    def bank() -> torch.Tensor:
        return open_latent_cache(config, store, vae, vae_digest="v", data_digest="d", folder=tmp_path).posterior_NCHW.clone()

    wanted = bank()
    path = next(tmp_path.glob("latents-*.pt"))
    content = path.read_bytes()
    place = content.index(wanted.numpy().tobytes()) + 5
    path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    capfd.readouterr()
    assert torch.equal(bank(), wanted) and path.read_bytes() == content
    assert capfd.readouterr().err.count("is damaged") == 1
