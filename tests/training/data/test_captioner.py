"""The caption command with real, tiny models of transformers."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest
from support.trainer import picture
from support.trainer_text import write_blip, write_llava

from faithdiff_core.captions import trim_caption
from training.commands.data import add
from training.data import manifest
from training.data.captions import QUESTION, Captioner, caption_manifest


def caption(*arguments: str | Path) -> None:
    """The command with these arguments."""
    root = argparse.ArgumentParser()
    add(root.add_subparsers())
    chosen = root.parse_args(["caption", *map(str, arguments), "--device", "cpu", "--max-tokens", "6"])
    chosen.run(chosen)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """The six pictures' manifest, to write to."""
    return Path(shutil.copy(data, tmp_path / "m.jsonl"))


def test_a_captioner_that_cannot_be_asked(blip: Path) -> None:
    captioner = Captioner.read(blip, "cpu", max_tokens=6)
    assert (captioner.is_asked, captioner.text) == (False, "")
    pictures = [picture(0), picture(1, 40, 50)]
    captions = captioner.describe(pictures)
    assert captions == captioner.describe(pictures), "greedy: the same again"
    assert captions == [captioner.describe([one])[0] for one in pictures], "neighbours in the batch change nothing"
    assert captions[0] != captions[1] and all(captions)
    begun = Captioner.read(blip, "cpu", prompt="the image", max_tokens=6).describe(pictures)
    assert all(text.startswith("the image") for text in begun)


def test_a_model_that_answers_gets_the_official_question_and_gives_the_answer_alone(llava: Path) -> None:
    captioner = Captioner.read(llava, "cpu", max_tokens=6)
    assert captioner.is_asked and captioner.text == QUESTION
    assert captioner.processor.tokenizer.padding_side == "left", "an answer would begin after padding"
    captions = captioner.describe([picture(0), picture(3, 40, 50)])
    assert captions == [captioner.describe([picture(0)])[0], captioner.describe([picture(3, 40, 50)])[0]]
    assert all(0 < len(text.split()) <= 6 for text in captions), "the question must not be part of the caption"
    assert captions[0] != captions[1]


def test_the_command_writes_a_manifest_with_captions(blip: Path, own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifest.read(own_data)
    out = own_data.with_name("captioned.jsonl")
    caption("--data", own_data, "--model", blip, "--out", out, "--batch-size", "4")
    records = manifest.read(out)
    assert "6 done, 0 left" in capsys.readouterr().out
    assert manifest.read(own_data) == before and [record.key for record in records] == [record.key for record in before]
    raw = {record.key: record.caption for record in records}
    assert all(raw.values())
    caption("--data", out, "--model", blip, "--prompt", "the dog")
    assert {record.key: record.caption for record in manifest.read(out)} == raw, "captions are kept"
    caption("--data", out, "--model", blip, "--overwrite", "--trim")
    assert {record.key: record.caption for record in manifest.read(out)} == {key: trim_caption(text) for key, text in raw.items()}
    assert sorted(path.name for path in own_data.parent.iterdir()) == ["captioned.jsonl", "m.jsonl"]


def test_an_interrupted_run_goes_on_where_it_was(blip: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = manifest.read(own_data)
    captioner = Captioner.read(blip, "cpu", max_tokens=6)
    calls: list[int] = []
    describe = Captioner.describe

    def counted(self: Captioner, pictures: list) -> list[str]:
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return describe(self, pictures)

    monkeypatch.setattr(Captioner, "describe", counted)
    with pytest.raises(KeyboardInterrupt):
        caption_manifest(records, own_data, captioner, batch_size=2, overwrite=False, trim=False)
    part = own_data.with_suffix(".part.jsonl")
    assert len(part.read_text().splitlines()) == 5 and manifest.read(own_data) == records
    with part.open("a") as lines:
        lines.write('{"key": "p4", "dig')  # killed in the middle of a line
    other = Captioner.read(blip, "cpu", prompt="a", max_tokens=6)
    with pytest.raises(ValueError, match="the same model, prompt"):
        caption_manifest(records, own_data, other, batch_size=2, overwrite=False, trim=False)
    made, skipped = caption_manifest(records, own_data, captioner, batch_size=2, overwrite=False, trim=False)
    assert (made, skipped, calls[3:]) == (6, [], [2])
    assert not part.exists()
    resumed = manifest.read(own_data)
    monkeypatch.undo()
    caption_manifest(records, own_data, captioner, batch_size=6, overwrite=False, trim=False)
    assert manifest.read(own_data) == resumed


def test_an_unreadable_picture_is_left_as_it_was(blip: Path, tmp_path: Path, own_data: Path) -> None:
    lines = [json.loads(line) for line in own_data.read_text().splitlines()]
    lines[2]["path"] = str(tmp_path / "gone.png")
    own_data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    captioner = Captioner.read(blip, "cpu", max_tokens=6)
    made, skipped = caption_manifest(manifest.read(own_data), own_data, captioner, batch_size=3, overwrite=False, trim=False)
    assert made == 5 and [item.key for item in skipped] == [lines[2]["key"]]
    assert [bool(record.caption) for record in manifest.read(own_data)] == [index != 2 for index in range(6)]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "with config.json"), ("{}", "image-to-text model"), ('{"model_type": "clip"}', "image-to-text")],
)
def test_a_folder_that_is_no_such_model_is_one_clear_error(
    content: str | None, message: str, tmp_path: Path, own_data: Path
) -> None:
    (tmp_path / "model").mkdir()
    if content:
        (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        caption("--data", own_data, "--model", tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_without_transformers_the_way_to_get_it_is_named(blip: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="pip install transformers"):
        caption("--data", own_data, "--model", blip)


def test_a_device_that_is_not_there_is_named(blip: Path) -> None:
    with pytest.raises(ValueError, match="expected --device"):
        Captioner.read(blip, "cuda:99")
    with pytest.raises(ValueError, match="expected --device"):
        Captioner.read(blip, "gpu")
