"""Manifest rules: keys, duplicates, unreadable files, captions, pairs, digests."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.trainer import picture

from faithdiff_core.listing.walk import list_pictures
from training.commands.data import add
from training.common.images import read_image, write_png
from training.data import manifest
from training.data.manifest import common_scale
from training.data.prepare import build, find
from training.data.rendered_words import render, write_series
from training.degradation.folder import degrade_paths


def prepare(*arguments: str | Path) -> None:
    """`prepare` with these arguments, all to train, any size."""
    root = argparse.ArgumentParser()
    add(root.add_subparsers())
    chosen = root.parse_args(["prepare", *map(str, arguments), "--val-frac", "0", "--min-side", "1"])
    chosen.run(chosen)


def test_prepare_lists_what_it_leaves_out(tmp_path: Path) -> None:
    write_png(tmp_path / "good.png", picture(0))
    (tmp_path / "good.txt").write_text("a caption\n")
    write_png(tmp_path / "copy.png", picture(0))
    write_png(tmp_path / "small.png", picture(1, 20, 20))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    write_png(tmp_path / "cut.png", picture(2))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-200])
    (tmp_path / "notes.txt").write_text("not a picture")
    found = find([tmp_path])
    records, skipped = build(found.pictures, val_frac=0.0, min_side_px=64, captions=found.captions)
    assert [record.key for record in records] == ["copy"]
    reasons = {item.key: item.reason.split()[0] for item in skipped}
    assert reasons == {"broken": "expected", "cut": "expected", "good": "same", "small": "shorter"}
    (tmp_path / "copy.png").unlink()
    records, _ = build(find([tmp_path]).pictures, val_frac=0.0, min_side_px=64, captions=found.captions)
    assert (records[0].key, records[0].caption, records[0].width_px, records[0].height_px) == ("good", "a caption", 128, 96)
    assert records[0].digest == hashlib.sha256((tmp_path / "good.png").read_bytes()).hexdigest()


def test_a_grey_picture_of_16_bits_keeps_its_brightness(tmp_path: Path) -> None:
    grey = torch.linspace(0, 65535, 64).round().to(torch.int32).expand(64, 64).numpy().astype("uint16")
    Image.fromarray(grey).save(tmp_path / "deep.png")
    read = read_image(tmp_path / "deep.png")
    assert torch.equal(read[0], torch.from_numpy((grey / 257).round().astype("uint8"))) and torch.equal(read[0], read[2])


def test_two_pictures_of_one_key_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a" / "x.png", picture(0))
    write_png(tmp_path / "b" / "x.png", picture(1))
    with pytest.raises(ValueError, match="expected one picture for key 'x'"):
        build(list_pictures([tmp_path / "a", tmp_path / "b"]).pictures, val_frac=0.0, min_side_px=1)


def test_the_skipped_are_written_beside_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    out, listed = tmp_path / "m.jsonl", tmp_path / "m.skipped.jsonl"
    prepare(tmp_path / "in", "--out", out)
    assert "skipped b: expected a readable picture" in capsys.readouterr().out
    assert [json.loads(line)["key"] for line in listed.read_text().splitlines()] == ["b"]
    assert [record.key for record in manifest.read(out)] == ["a"]
    (tmp_path / "in" / "b.png").unlink()
    prepare(tmp_path / "in", "--out", out)
    assert not listed.exists(), "an old list would name pictures that are no longer left out"


def test_pairs_are_joined_by_key_and_whatever_has_no_partner_is_named(tmp_path: Path) -> None:
    for index, (height, width) in enumerate([(96, 128), (97, 130), (96, 128), (64, 64)]):
        write_png(tmp_path / "hq" / "sub" / f"{index}.png", picture(index, height, width))
    sizes = {"0": (24, 32), "1": (24, 32), "3": (16, 32), "9": (8, 8)}  # 2 has none, 3 another shape, 9 no HQ picture
    for key, (height, width) in sizes.items():
        write_png(tmp_path / "lq" / "sub" / f"{key}.png", picture(10 + int(key), height, width))
    prepare(tmp_path / "hq", "--lq", tmp_path / "lq", "--out", tmp_path / "m.jsonl")
    records = manifest.read(tmp_path / "m.jsonl")
    assert [(record.key, record.lq_scale) for record in records] == [("sub/0", 4), ("sub/1", 4)]
    for record in records:
        twin = Path(record.lq_path)
        assert twin.name == Path(record.path).name and "lq" in twin.parts
        assert record.lq_digest == hashlib.sha256(twin.read_bytes()).hexdigest()
    listed = [json.loads(line) for line in (tmp_path / "m.skipped.jsonl").read_text().splitlines()]
    words = {row["key"]: row["reason"] for row in listed}
    assert words.keys() == {"sub/2", "sub/3", "sub/9"}
    assert (
        "no LQ picture" in words["sub/2"] and "whole number of times" in words["sub/3"] and "without an HQ one" in words["sub/9"]
    )


def test_what_degrade_writes_is_the_twin_of_what_it_read(tmp_path: Path) -> None:
    for index, (height, width) in enumerate([(96, 128), (99, 131)]):
        write_png(tmp_path / "hq" / f"{index}.png", picture(index, height, width))
    degrade_paths(tmp_path / "hq", tmp_path / "lq", level="I", scale=4, seed=0)
    prepare(tmp_path / "hq", "--lq", tmp_path / "lq", "--out", tmp_path / "m.jsonl")
    assert [record.lq_scale for record in manifest.read(tmp_path / "m.jsonl")] == [4, 4]
    assert not (tmp_path / "m.skipped.jsonl").exists()


@pytest.mark.parametrize(
    ("hq", "lq", "scale"),
    [
        ((96, 128), (24, 32), 4),
        ((97, 131), (24, 33), 4),
        ((101, 67), (25, 17), 4),
        ((30, 30), (30, 30), 1),
        ((2040, 1356), (510, 339), 4),
    ],
)
def test_scale_of_a_pair(hq: tuple[int, int], lq: tuple[int, int], scale: int) -> None:
    assert common_scale(hq, lq) == scale


@pytest.mark.parametrize(
    ("hq", "lq"), [((96, 128), (32, 24)), ((96, 128), (192, 256)), ((96, 128), (24, 31)), ((100, 100), (40, 40))]
)
def test_pairs_of_other_shapes_have_none(hq: tuple[int, int], lq: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected an HQ picture a whole number of times"):
        common_scale(hq, lq)


def test_captions_come_by_key_from_beside_or_from_a_folder(tmp_path: Path) -> None:
    for index in range(4):
        write_png(tmp_path / "in" / f"{index}.png", picture(index))
    (tmp_path / "in" / "0.json").write_text('{"caption": "The image features a dog. It runs. It sleeps"}')
    (tmp_path / "in" / "1.txt").write_text("\ufeffstra\u00dfe\n", encoding="utf-8")
    (tmp_path / "in" / "2.json").write_text('{"tags": [], "score": NaN, "far": 1e999, "id": ' + "9" * 5000 + "}")
    (tmp_path / "in" / "3.txt").write_bytes(b"\xff\xfe\x00")
    prepare(tmp_path / "in", "--out", tmp_path / "m.jsonl")
    captions = {record.key: record.caption for record in manifest.read(tmp_path / "m.jsonl")}
    assert captions == {"0": "The image features a dog. It runs. It sleeps", "1": "stra\u00dfe", "2": ""}
    assert '"3"' in (tmp_path / "m.skipped.jsonl").read_text(), "a caption that cannot be read must not be dropped in silence"
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "3.json").write_text('{"caption": "The image features a cat. It sits. It sleeps"}')
    prepare(tmp_path / "in", "--captions", tmp_path / "captions", "--trim", "--out", tmp_path / "m.jsonl")
    captions = {record.key: record.caption for record in manifest.read(tmp_path / "m.jsonl")}
    assert captions == {"0": "", "1": "", "2": "", "3": "A cat. It sits."}


def test_the_split_of_a_key_does_not_depend_on_the_others(tmp_path: Path) -> None:
    for index in range(40):
        write_png(tmp_path / f"k{index}.png", picture(index, 16, 16))
    all_records, _ = build(list_pictures([tmp_path]).pictures, val_frac=0.3, min_side_px=1)
    splits = {record.key: record.split for record in all_records}
    assert 4 <= sum(split == "val" for split in splits.values()) <= 20
    some = [(key, path) for key, path in list_pictures([tmp_path]).pictures if key.endswith("7")]
    assert all(record.split == splits[record.key] for record in build(some, val_frac=0.3, min_side_px=1)[0])


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


def test_lines_without_the_later_fields_are_read_and_wrong_types_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    old = {"key": "x", "path": "/x.png", "width_px": 4, "height_px": 5, "digest": "d", "split": "train", "caption": "c"}
    path.write_text(json.dumps(old) + "\n")
    record = manifest.read(path)[0]
    assert (record.size_bytes, record.lq) == (0, None)
    manifest.write([record], path)
    assert json.loads(path.read_text()) == old, "a manifest without shards and pairs keeps its lines"
    for wrong in ({"width_px": "4"}, {"width_px": True}, {"offset": -1}, {"key": None}, {"lq_path": "y.png"}):
        path.write_text(json.dumps(old | wrong) + "\n")
        with pytest.raises(ValueError, match="line 1 of"):
            manifest.read(path)


def test_the_digest_names_the_twins_too() -> None:
    record = manifest.Record("x", "p", 4, 5, "d", "train")
    paired = manifest.Record("x", "p", 4, 5, "d", "train", lq_path="q", lq_digest="e", lq_scale=2)
    assert manifest.data_digest([record]) == hashlib.sha256(b"x d\n").hexdigest()
    assert manifest.data_digest([record]) != manifest.data_digest([paired])


def test_text_pictures_depend_on_seed_and_index_alone(tmp_path: Path) -> None:
    first = write_series(tmp_path / "a", seed=0, count=2)
    second = write_series(tmp_path / "b", seed=0, count=1)
    assert first[0][0] == second[0][0] == "text/text-0-0000"
    assert first[0][1].read_bytes() == second[0][1].read_bytes()
    assert first[0][1].read_bytes() != first[1][1].read_bytes()
    assert render(1, 0).tobytes() != render(0, 0).tobytes()
