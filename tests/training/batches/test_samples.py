"""Which crops a step gets: the same whatever shares the work, each picture in turn, and unreadable ones replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.compare import assert_close
from support.trainer import KEPT_AS_FP16, picture

from training.batches.latent_cache import open_latent_cache
from training.batches.samples import Sample, SampleSource
from training.batches.store import ImageStore
from training.common.images import write_png
from training.config.schema import TrainConfig
from training.data import manifest
from training.data.manifest import Record
from training.data.prepare import build
from training.model.networks import build_vae, network_spec

Quick = Callable[..., TrainConfig]


def source_of(config: TrainConfig, records: list[Record], folder: Path | None = None) -> SampleSource:
    """A source over `records`, of a bank in `folder` if the configuration has one."""
    store = ImageStore(records, short_side_px=config.store_short_side_px, cache_bytes=config.cache_bytes)
    bank = None
    if config.latent_crops:
        assert folder is not None
        torch.manual_seed(0)
        vae = build_vae(network_spec(config.network)).eval()
        bank = open_latent_cache(config, store, vae, vae_digest="v", data_digest=manifest.data_digest(records), folder=folder)
    return SampleSource(config, store, bank)


def same(one: Sample, other: Sample) -> bool:
    """Everything equal, further draws included (which this advances)."""
    tensors = ("image_CHW", "lq_CHW", "posterior_CHW", "time_ids_6")
    for name in tensors:
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None) or (a is not None and not torch.equal(a, b)):
            return False
    draws = [torch.rand(3, generator=sample.generator) for sample in (one, other)]
    return one.key == other.key and one.caption == other.caption and torch.equal(*draws)


@pytest.mark.parametrize("latent_crops", [0, 9])
def test_workers_order_and_slices_change_nothing(quick: Quick, data: Path, tmp_path: Path, latent_crops: int) -> None:
    records = [replace(record, caption=f"caption of {record.key}") for record in manifest.read(data)]
    base = quick("nano-align", "steps=8", "batch_size=4", f"latent_crops={latent_crops}", "workers=0")
    plain = source_of(base, records, tmp_path)
    steps = [plain.samples(step, range(4)) for step in range(8)]
    threaded = source_of(replace(base, workers=3, cache_bytes=1), list(reversed(records)), tmp_path)
    threaded.prefetch(0, range(0, 2))
    threaded.prefetch(7, range(0, 4))
    for step in range(8):
        got = threaded.samples(step, range(0, 2)) + threaded.samples(step, range(2, 4))
        assert all(same(one, other) for one, other in zip(got, steps[step], strict=True)), f"step {step}"
    resumed = source_of(base, records, tmp_path).samples(5, range(3, 4))[0]
    again = source_of(base, records, tmp_path).samples(5, range(4))[3]
    assert same(resumed, again)
    assert all(sample.caption == f"caption of {sample.key}" for batch in steps for sample in batch)


def test_every_picture_comes_once_before_any_comes_again(quick: Quick, data: Path) -> None:
    config = quick("nano-align", "steps=9", "batch_size=4", "late_batch_size=2", "late_from_frac=0.5", "latent_crops=0")
    source = source_of(config, manifest.read(data))
    assert len(source) == 6
    batches = [source.samples(step, range(config.crops_at(step)[0])) for step in range(9)]
    assert [len(batch) for batch in batches] == [4] * 5 + [2] * 4
    keys = [sample.key for batch in batches for sample in batch]
    epochs = [keys[start : start + 6] for start in range(0, 24, 6)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "every epoch has an order of its own"
    assert [sample.key for sample in source_of(replace(config, seed=1), manifest.read(data)).samples(0, range(4))] != keys[:4]


def test_one_picture_in_two_places_or_steps_has_other_draws(quick: Quick, data: Path) -> None:
    source = source_of(quick("nano-align", "batch_size=3", "latent_crops=0"), manifest.read(data)[:1])
    samples = source.samples(0, range(3)) + source.samples(1, range(3))
    assert len({sample.key for sample in samples}) == 1
    assert len({torch.rand((), generator=sample.generator).item() for sample in samples}) == 6


def test_late_crops_have_their_size(quick: Quick, data: Path) -> None:
    config = quick("nano-align", "steps=4", "late_crop_px=64", "late_from_frac=0.5", "latent_crops=0")
    source = source_of(config, manifest.read(data))
    assert [source.samples(step, range(1))[0].image_CHW.shape[1] for step in range(4)] == [32, 32, 64, 64]


def test_a_bank_crop_is_the_one_that_was_encoded(quick: Quick, data: Path, tmp_path: Path) -> None:
    config = quick("nano-align", "batch_size=4", "latent_crops=7")
    source = source_of(config, manifest.read(data), tmp_path)
    torch.manual_seed(0)
    vae = build_vae(network_spec("tiny")).eval()
    for sample in source.samples(0, range(4)):
        with torch.no_grad():
            wanted = vae.encode(sample.image_CHW[None], return_dict=False)[0].parameters[0]
        assert sample.posterior_CHW is not None and sample.posterior_CHW.dtype == torch.float16
        assert_close(sample.posterior_CHW, wanted, KEPT_AS_FP16)
    assert len(list(tmp_path.glob("latents-*.pt"))) == 1
    file = next(tmp_path.glob("latents-*.pt"))
    held, when = file.read_bytes(), file.stat().st_mtime_ns
    source_of(config, manifest.read(data), tmp_path)
    assert file.stat().st_mtime_ns == when, "a second process reads it"
    file.write_bytes(held[: len(held) // 2])
    source_of(config, manifest.read(data), tmp_path)
    assert file.stat().st_size == len(held), "a damaged one is made again"


def test_a_bank_cannot_change_its_crops(quick: Quick, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected late_crop_px 0 with latent_crops"):
        source_of(quick("nano-align", "latent_crops=4", "late_crop_px=64"), manifest.read(data), tmp_path)


def written(folder: Path, count: int) -> list[Record]:
    for index in range(count):
        write_png(folder / f"p{index}.png", picture(index))
    return build([(f"p{index}", folder / f"p{index}.png") for index in range(count)], val_frac=0, min_side_px=1)[0]


@pytest.mark.parametrize("latent_crops", [0, 16])
def test_an_unreadable_picture_is_replaced_and_named_once(
    quick: Quick, tmp_path: Path, capsys: pytest.CaptureFixture[str], latent_crops: int
) -> None:
    records = written(tmp_path, 8)
    config = quick("nano-align", "steps=6", "batch_size=4", f"latent_crops={latent_crops}")
    healthy = source_of(config, records, tmp_path)  # the bank is made while all are readable
    before = [healthy.samples(step, range(4)) for step in range(6)]
    (tmp_path / "p3.png").unlink()
    runs = []
    for workers in (0, 2):
        source = source_of(replace(config, workers=workers), records, tmp_path)
        runs.append([source.samples(step, range(4)) for step in range(6)])
        assert list(source.unreadable) == ["p3"] and "p3.png" in source.unreadable["p3"]
        assert capsys.readouterr().err.count("warning: 'p3' is replaced") == 1
    replaced = 0
    for old, one, other in zip(*(sum(run, []) for run in (before, *runs)), strict=True):
        assert same(one, other), "the replacement depends on the files alone"
        if old.key == "p3":
            replaced += 1
            assert one.key != "p3"
        else:
            assert old.key == one.key and torch.equal(old.image_CHW, one.image_CHW)
    assert replaced >= 3


def test_too_many_unreadable_pictures_stop_the_run(quick: Quick, tmp_path: Path) -> None:
    records = written(tmp_path, 10)
    for index in (2, 4, 7):
        (tmp_path / f"p{index}.png").write_bytes(b"gone")
    config = quick("nano-align", "steps=6", "batch_size=5", "latent_crops=0", "workers=0")
    lenient = source_of(replace(config, max_unreadable_frac=0.3), records)
    assert {sample.key for step in range(6) for sample in lenient.samples(step, range(5))}.isdisjoint({"p2", "p4", "p7"})
    for workers in (0, 2):
        strict = source_of(replace(config, workers=workers), records)
        with pytest.raises(ValueError, match=r"expected at most 1 of 10 pictures .* got [23] \(p\d, p\d"):
            [strict.samples(step, range(5)) for step in range(6)]
        with pytest.raises(ValueError, match="expected at most 1 of 10"):
            [strict.samples(step, range(5)) for step in range(6)]
    with pytest.raises(ValueError, match="expected at most 1 of 10"):
        source_of(replace(config, latent_crops=10), records, tmp_path)
    (tmp_path / "p0.png").unlink()
    with pytest.raises(ValueError, match="expected at most 0 of 1 pictures"):
        source_of(config, records[:1]).samples(0, range(1))


def test_a_picture_of_another_size_than_in_the_manifest_is_not_used(quick: Quick, tmp_path: Path) -> None:
    records = written(tmp_path, 6)
    write_png(tmp_path / "p1.png", picture(1, 64, 64))
    source = source_of(quick("nano-align", "batch_size=6", "latent_crops=0"), records)
    source.samples(0, range(6))
    assert "as in the manifest" in source.unreadable["p1"]


def test_pairs_through_the_source(quick: Quick, tmp_path: Path) -> None:
    for index in range(3):
        image = picture(index, 80, 96)
        write_png(tmp_path / "hq" / f"{index}.png", image)
        if index < 2:
            write_png(tmp_path / "lq" / f"{index}.png", image[:, ::4, ::4].contiguous())
    pictures = [(str(index), tmp_path / "hq" / f"{index}.png") for index in range(3)]
    twins = {str(index): tmp_path / "lq" / f"{index}.png" for index in range(2)}
    records, skipped = build(pictures, val_frac=0, min_side_px=1, lq=twins)
    assert not skipped
    for latent_crops in (0, 6):
        config = quick("nano-align", "batch_size=6", f"latent_crops={latent_crops}", "store_short_side_px=40")
        for sample in source_of(config, records, tmp_path).samples(0, range(6)):
            if sample.key == "2":
                assert sample.lq_CHW is None
                continue
            assert sample.lq_CHW is not None
            straight, flipped = sample.image_CHW[:, ::4, ::4], sample.image_CHW.flip(2)[:, ::4, ::4].flip(2)
            lq = sample.lq_CHW * 2 - 1
            assert torch.allclose(lq, straight, atol=1e-5) or torch.allclose(lq, flipped, atol=1e-5)
            assert sample.time_ids_6.tolist()[:2] == [80.0, 96.0], "pairs keep their own size"
    with pytest.raises(ValueError, match="multiple of every pair's scale"):
        source_of(quick("nano-align", "latent_crops=0"), [replace(record, lq_scale=3) for record in records])


def test_prefetch_that_nobody_asks_for_is_dropped(quick: Quick, data: Path) -> None:
    source = source_of(quick("nano-align", "steps=50", "latent_crops=0", "workers=1"), manifest.read(data))
    for step in range(0, 40, 2):
        source.prefetch(step, range(2))
        source.samples(step + 1, range(2))
    assert not source._ahead


def test_worker_threads_leave_the_number_of_torch_threads_alone(quick: Quick, data: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        source = source_of(quick("nano-align", "latent_crops=0", "workers=2"), manifest.read(data))
        source.samples(0, range(2))
        assert source._pool is not None
        assert source._pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
