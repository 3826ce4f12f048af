"""Pictures inside .tar shards: found by name, read by offset, and nothing hostile is followed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from support.trainer import picture, png, write_shard

from training.batches.store import ImageStore
from training.common.images import read_image, write_png
from training.data import manifest
from training.data.prepare import build, find
from training.data.shards import Segment, read_contents


def test_members_are_joined_by_their_name_and_read_by_offset(tmp_path: Path) -> None:
    members = {
        "a/0001.png": png(1),
        "a/0001.txt": b"one",
        "a/0002.lq.png": png(22, 24, 32),
        "a/0002.json": json.dumps({"caption": "two"}).encode(),
        "a/0002.PNG": png(2),
        "a/0003.cls": b"7",
    }
    write_shard(tmp_path / "in" / "deep" / "shard-0.tar", members)
    write_shard(tmp_path / "in" / "shard-1.tar", {"./b.webp": b"no picture", "c.png": png(3)})
    write_png(tmp_path / "in" / "loose.png", picture(4))
    found = find([tmp_path / "in"])
    records, skipped = build(found.pictures, val_frac=0, min_side_px=1, lq=found.lq, captions=found.captions)
    assert [(record.key, record.caption, record.lq_scale) for record in records] == [
        ("a/0001", "one", 0), ("a/0002", "two", 4), ("c", "", 0), ("loose", "", 0),
    ]  # fmt: skip
    assert [item.key for item in skipped] == ["b"]
    path = tmp_path / "m.jsonl"
    manifest.write(records, path)
    store = ImageStore(manifest.read(path), short_side_px=0, cache_bytes=10**6)
    for index, seed in enumerate((1, 2, 3, 4)):
        assert torch.equal(store.pictures(index).image_u8, picture(seed))
    twin = store.pictures(1).lq_u8
    assert twin is not None and torch.equal(twin, picture(22, 24, 32))
    assert store.records[0].size_bytes == len(members["a/0001.png"])


def test_hostile_members_are_refused_and_nothing_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.png"
    write_png(secret, picture(0))
    shard = tmp_path / "in" / "bad.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as archive:
        for name in ("../up.png", "/absolute.png", "a/../../b.png", "a\\..\\c.png"):
            header = tarfile.TarInfo(name)
            header.size = len(png(1))
            archive.addfile(header, io.BytesIO(png(1)))
        for name, kind, target in (("soft.png", tarfile.SYMTYPE, str(secret)), ("hard.png", tarfile.LNKTYPE, "good.png")):
            header = tarfile.TarInfo(name)
            header.type, header.linkname, header.size = kind, target, 4000
            archive.addfile(header)
        for name, kind in (("device.png", tarfile.CHRTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            header = tarfile.TarInfo(name)
            header.type = kind
            archive.addfile(header)
        header = tarfile.TarInfo("good.png")
        header.size = len(png(2))
        archive.addfile(header, io.BytesIO(png(2)))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / "in")
    contents = read_contents(shard)
    assert [key for key, _ in contents.pictures] == ["good"]
    assert {name for name, _ in contents.refused} == {
        "../up.png", "/absolute.png", "a/../../b.png", "a\\..\\c.png", "soft.png", "hard.png", "device.png", "pipe.png",
    }  # fmt: skip
    assert all(("link" in reason) == name.endswith(("ft.png", "rd.png", "ce.png", "pe.png")) for name, reason in contents.refused)
    assert torch.equal(read_image(contents.pictures[0][1]), picture(2))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_shard_gives_what_came_before_the_damage(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {f"{index}.png": png(index) for index in range(3)})
    whole = read_contents(shard)
    last = whole.pictures[2][1]
    shard.write_bytes(shard.read_bytes()[: last.offset + 50])
    contents = read_contents(shard)
    records, skipped = build(contents.pictures, val_frac=0, min_side_px=1)
    assert [record.key for record in records] == ["0", "1"]
    assert len(contents.refused) + len(skipped) >= 1
    with pytest.raises(ValueError, match="expected .* bytes at"):
        read_image(last)
    for data in (b"no tar at all" * 100, b""):
        shard.write_bytes(data)
        assert not read_contents(shard).pictures
    assert find([shard]).pictures == []


def test_a_compressed_tar_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:gz") as archive:
        header = tarfile.TarInfo("a.png")
        archive.addfile(header, io.BytesIO(b""))
    assert "uncompressed" in read_contents(tmp_path / "s.tar").refused[0][1]


def test_a_segment_past_the_end_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    with pytest.raises(ValueError, match="expected 10 bytes at 3"):
        read_image(Segment(path=str(tmp_path / "f"), offset=3, size_bytes=10))
    with pytest.raises(ValueError, match="expected a readable picture"):
        read_image(Segment(path=str(tmp_path / "none"), offset=3, size_bytes=10))
