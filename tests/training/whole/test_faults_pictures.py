"""Pictures, shards and reading threads that fail while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.trainer import png, write_shard
from support.trainer_toy import equal, train_part

from training.batches.samples import SampleSource
from training.batches.store import ImageStore, Pictures
from training.common.images import read_image
from training.config.schema import TrainConfig
from training.data.manifest import Record
from training.data.prepare import build, find
from training.folder.result import NoResult, read_result
from training.loop import checkpoints
from training.tasks.vae import VAETask

Quick = Callable[..., TrainConfig]


@pytest.fixture
def config(quick: Quick) -> TrainConfig:
    """Six steps of the autoencoder, a checkpoint after each."""
    return quick("nano-vae", "steps=6", "save_every=1", "device=cpu")


def records_of(folder: Path) -> list[Record]:
    return build(find([folder]).pictures, val_frac=0, min_side_px=1)[0]


def train(
    config: TrainConfig, records: list[Record], run_dir: Path, kind: type[ImageStore] = ImageStore, stop_after: int | None = None
) -> None:
    """A run that goes on where it was; pictures are read anew at every use."""
    store = kind(records, short_side_px=0, cache_bytes=1)
    train_part(VAETask(config, store), config, run_dir, resume=True, stop_after=stop_after)


def test_a_shard_that_disappears_in_mid_run_stops_it_with_names(
    tmp_path: Path, config: TrainConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    shard = write_shard(tmp_path / "in" / "s.tar", {f"in-shard-{index}.png": png(index) for index in range(4)})
    (tmp_path / "in" / "loose.png").write_bytes(png(9))
    records = records_of(tmp_path / "in")
    train(config, records, tmp_path / "run", stop_after=2)
    shard.rename(shard.with_suffix(".gone"))
    capfd.readouterr()
    with pytest.raises(ValueError, match=r"expected at most 1 of 5 pictures to have turned unreadable, got 2 \(in-shard-\d, "):
        train(config, records, tmp_path / "run")
    assert capfd.readouterr().err.count(f"No such file or directory: '{shard}'") == 2
    assert checkpoints.load(tmp_path / "run")["step"] >= 2
    shard.with_suffix(".gone").rename(shard)
    train(config, records, tmp_path / "run")
    assert checkpoints.load(tmp_path / "run")["step"] == 6


def test_one_picture_that_becomes_unreadable_is_replaced_and_a_resumed_run_takes_the_same(
    tmp_path: Path, config: TrainConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    for index in range(4):
        (tmp_path / f"p{index}.png").write_bytes(png(index))
    records, bad = records_of(tmp_path), tmp_path / "p2.png"
    for name, stops in (("whole", (6,)), ("parts", (4, 6))):
        bad.write_bytes(png(2))
        train(config, records, tmp_path / name, stop_after=2)
        bad.write_bytes(png(2)[:500])
        for stop in stops:
            train(config, records, tmp_path / name, stop_after=stop)
        assert capfd.readouterr().err.count("'p2' is replaced by another picture: expected a readable picture") >= 1
    assert equal(*(checkpoints.load(tmp_path / name)["trained"] for name in ("whole", "parts")))


def test_a_machine_without_memory_is_not_a_damaged_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(0)
    (tmp_path / "a.png").write_bytes(data)

    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", no_memory)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")
    with pytest.raises(NoResult, match="expected memory for the server's picture of .* bytes, got too little"):
        read_result(data, "a.png")


@pytest.mark.parametrize("error", [MemoryError("no memory for this picture"), SystemExit(1)])
def test_a_reading_thread_that_ends_stops_the_step_and_hangs_nothing(tmp_path: Path, quick: Quick, error: BaseException) -> None:
    """Readers are threads, which nothing can kill but with the process: what ends one is an error that nobody expects there."""

    class Breaking(ImageStore):
        reads = count(1)

        def _read(self, record: Record) -> Pictures:
            if next(self.reads) == 6:  # in one operation: two threads must not both be the sixth, nor neither
                raise error
            return super()._read(record)

    for index in range(3):
        (tmp_path / f"p{index}.png").write_bytes(png(index))
    config = quick("nano-joint", "latent_crops=0", "steps=8", "workers=2")
    records = records_of(tmp_path)
    broken = SampleSource(config, Breaking(records, short_side_px=0, cache_bytes=1))
    whole = SampleSource(replace(config, workers=0), ImageStore(records, short_side_px=0, cache_bytes=1))
    ended = 0
    for step in range(8):
        broken.prefetch(step, range(2))
        try:
            got = broken.samples(step, range(2))
        except type(error):
            ended += 1
            got = broken.samples(step, range(2))  # the threads live on: a step that is taken again gets what it should
        for sample, wanted in zip(got, whole.samples(step, range(2)), strict=True):
            assert sample.key == wanted.key and equal(sample.image_CHW, wanted.image_CHW)
    assert ended == 1
