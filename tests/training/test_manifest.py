"""Manifest rules: keys, duplicates, unreadable files, digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from training_support import picture

from training import manifest
from training.images import picture_paths, write_png
from training.text_images import render, write_series


def test_prepare_lists_what_it_leaves_out(tmp_path: Path) -> None:
    write_png(tmp_path / "good.png", picture(0))
    (tmp_path / "good.txt").write_text("a caption\n")
    write_png(tmp_path / "copy.png", picture(0))
    write_png(tmp_path / "small.png", picture(1, 20, 20))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    (tmp_path / "notes.txt").write_text("not a picture")
    records, skipped = manifest.build(picture_paths([tmp_path]), val_frac=0.0, min_side_px=64)
    assert [record.key for record in records] == ["copy"]
    assert {item.key: item.reason.split()[0] for item in skipped} == {"broken": "expected", "good": "same", "small": "shorter"}
    (tmp_path / "copy.png").unlink()
    records, _ = manifest.build(picture_paths([tmp_path]), val_frac=0.0, min_side_px=64)
    assert (records[0].key, records[0].caption, records[0].width_px, records[0].height_px) == ("good", "a caption", 128, 96)
    assert records[0].digest == hashlib.sha256((tmp_path / "good.png").read_bytes()).hexdigest()


def test_two_pictures_of_one_key_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a" / "x.png", picture(0))
    write_png(tmp_path / "b" / "x.png", picture(1))
    with pytest.raises(ValueError, match="expected one picture for key 'x'"):
        manifest.build(picture_paths([tmp_path / "a", tmp_path / "b"]), val_frac=0.0, min_side_px=1)


def test_the_split_of_a_key_does_not_depend_on_the_others(tmp_path: Path) -> None:
    for index in range(40):
        write_png(tmp_path / f"k{index}.png", picture(index, 16, 16))
    all_records, _ = manifest.build(picture_paths([tmp_path]), val_frac=0.3, min_side_px=1)
    splits = {record.key: record.split for record in all_records}
    assert 4 <= sum(split == "val" for split in splits.values()) <= 20
    some = [(key, path) for key, path in picture_paths([tmp_path]) if key.endswith("7")]
    assert all(record.split == splits[record.key] for record in manifest.build(some, val_frac=0.3, min_side_px=1)[0])


def test_written_and_read_again_and_damage_is_named(tmp_path: Path, data: Path) -> None:
    records = manifest.read(data)
    assert len(records) == 6
    path = tmp_path / "again.jsonl"
    manifest.write(records, path)
    assert manifest.read(path) == records
    digest = manifest.data_digest(records)
    assert manifest.data_digest(list(reversed(records))) == digest
    assert manifest.data_digest(records[1:]) != digest
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="expected one line for key"):
        manifest.read(path)
    path.write_text('{"key": "x"}\n')
    with pytest.raises(ValueError, match="line 1"):
        manifest.read(path)
    path.write_text("")
    with pytest.raises(ValueError, match="at least one picture"):
        manifest.read(path)


def test_text_pictures_depend_on_seed_and_index_alone(tmp_path: Path) -> None:
    first = write_series(tmp_path / "a", seed=0, count=2)
    second = write_series(tmp_path / "b", seed=0, count=1)
    assert first[0][0] == second[0][0] == "text/text-0-0000"
    assert first[0][1].read_bytes() == second[0][1].read_bytes()
    assert first[0][1].read_bytes() != first[1][1].read_bytes()
    assert render(1, 0).tobytes() != render(0, 0).tobytes()
