"""No room, and folders that nothing can be written to: one clear message, no half file, and the run goes on afterwards."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.trainer_models import made_up_model, tiny, write_run
from support.trainer_toy import ToyTask, equal, toy_config, train_part

from training.batches.latent_cache import open_latent_cache
from training.batches.prompt_cache import TextCache
from training.batches.store import ImageStore
from training.cli import main
from training.common.stopping import SaveError
from training.config.schema import TrainConfig
from training.data import manifest
from training.loop import checkpoints, loop
from training.loop.task import Batch
from training.model.networks import build_vae, network_spec

Quick = Callable[..., TrainConfig]


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file can grow beyond 4 KiB: a failed write, as on a full disk, without the rights to mount a small one."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def ends_as_uninterrupted(run_dir: Path, config: TrainConfig, elsewhere: Path) -> None:
    """Go on with the run; its weights must be those of a run without faults."""
    loop.train(ToyTask(config), config, run_dir, extra={}, resume=True)
    loop.train(ToyTask(config), config, elsewhere, extra={}, resume=False)
    assert equal(checkpoints.load(run_dir)["trained"], checkpoints.load(elsewhere)["trained"])


def test_no_room_for_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(stage="align")
    run_dir = write_run(tmp_path / "run", config, made_up_model(config))
    out = tmp_path / "out" / "x.safetensors"
    with no_room():
        assert main(["export", str(run_dir), "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "expected to read and write files, got" in printed and "File too large" in printed
    assert list(out.parent.iterdir()) == []


def test_no_room_for_the_bank_of_latents(quick: Quick, data: Path, tmp_path: Path) -> None:
    store = ImageStore(manifest.read(data), short_side_px=96, cache_bytes=10**8)
    vae = build_vae(network_spec("tiny")).eval()
    config = quick("nano-align", "latent_crops=32")
    with no_room(), pytest.raises(OSError, match="File too large"):
        open_latent_cache(config, store, vae, vae_digest="v", data_digest="d", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_prompt(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "encoders")
    with no_room(), pytest.raises(OSError, match="File too large"):
        cache._write("a word", torch.zeros(77, 64), torch.zeros(64))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    cache._write("a word", torch.zeros(77, 64), torch.zeros(64))
    assert cache.get("a word")[0].shape == (77, 64)


def test_no_room_for_a_checkpoint_and_then_room_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = toy_config("steps=6")
    run_dir = tmp_path / "run"
    train_part(ToyTask(config), config, run_dir, resume=False, stop_after=2)
    before = checkpoints.saved_in(run_dir)[0].read_bytes()
    capfd.readouterr()
    told = r"step 6 could not be saved \(.*File too large.*make room and go on with --resume"
    with no_room(), pytest.raises(SaveError, match=told):
        loop.train(ToyTask(config), config, run_dir, extra={}, resume=True)
    assert capfd.readouterr().err.count("could not be saved") == 2  # steps 4 and 6
    assert [path.read_bytes() for path in (run_dir / checkpoints.FOLDER).iterdir()] == [before]
    ends_as_uninterrupted(run_dir, config, tmp_path / "whole")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that `read_only` can close: root does not care about the rights of a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    while subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False).returncode == 0:
        pass


def read_only(folder: Path) -> None:
    """Mount the folder over itself, read-only; `umount` opens it again."""
    if subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs rights that this user has not")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)


def test_a_folder_that_becomes_read_only_in_mid_run(disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Remounting(ToyTask):
        def batch(self, step: int, places: range) -> Batch:
            if step == 3:
                read_only(disk)
            return super().batch(step, places)

    config = toy_config("steps=6", "validate_every=3")
    run_dir = disk / "run"
    with pytest.raises(SaveError, match=r"step 6 could not be saved \(.*Read-only file system"):
        loop.train(Remounting(config), config, run_dir, extra={}, resume=False)
    assert "step 4 could not be saved" in capfd.readouterr().err
    assert [path.name for path in (run_dir / checkpoints.FOLDER).iterdir()] == ["step-00000002.pt"]
    # As it is, nothing can begin or go on there, and what is there can be read.
    for folder in (run_dir, disk / "new"):
        with pytest.raises(ValueError, match="expected a run folder that can be written to, got .*Read-only file system"):
            loop.train(ToyTask(config), config, folder, extra={}, resume=True)
    assert checkpoints.load(run_dir)["step"] == 2
    subprocess.run(["umount", str(disk)], check=True)
    ends_as_uninterrupted(run_dir, config, tmp_path / "whole")


def test_a_read_only_folder_on_the_command_line(
    disk: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(stage="align")
    run_dir = write_run(tmp_path / "run", config, made_up_model(config))
    read_only(disk)
    settings = ["--set", "network=tiny", "device=cpu", "tracker=none"]
    for arguments in (
        ["train", "nano-vae", "--data", str(data), "--out", str(disk / "run"), *settings],
        ["export", str(run_dir), "--out", str(disk / "x.safetensors")],
    ):
        assert main(arguments) == 2
        printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(printed) == 1 and "Read-only file system" in printed[0] and "check the path and the disk" in printed[0]
