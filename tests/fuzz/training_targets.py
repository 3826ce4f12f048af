"""Readers of the trainer and its commands: files of every kind, settings, and what a server answers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from training.common.images import read_image
from training.common.strict_json import parse_json
from training.common.tensor_files import read_parts
from training.config.overrides import from_json, override, to_json
from training.config.recipes import recipe
from training.data import manifest
from training.data.caption_files import CaptionFile
from training.data.captions import _resume
from training.data.prepare import build, find
from training.folder.address import server_url
from training.folder.client import describe_refusal
from training.folder.prompt import make_form, read_prompt
from training.folder.record import FolderRecord, Workflow
from training.folder.result import NoResult, read_ending, read_result
from training.reading.annotations import read_annotations
from training.weights.base import read_base_unet
from training.weights.load_export import spec_of
from training.weights.vae import read_vae

from .json_cases import LITERALS, broken, mutated
from .pickle_cases import pickle_files
from .safetensors_cases import safetensors_files
from .target import Target
from .training_cases import (
    ANNOTATIONS,
    HISTORY,
    PART,
    PROMPT,
    RECORD,
    REFUSAL,
    RESTORED,
    SETTINGS,
    numbers_changed,
    pictures,
    shards,
)


def _put(case: bytes, path: Path) -> Path:
    path.write_bytes(case)
    return path


def _weights(case: bytes, path: Path) -> None:
    parts = read_parts(_put(case, path))
    if parts.unet is not None:
        spec_of(parts)


def _base(case: bytes, folder: Path) -> None:
    read_base_unet(_put(case, folder / "case.safetensors"))


def _vae(case: bytes, folder: Path) -> None:
    read_vae(_put(case, folder / "case.safetensors"))


def _manifest(case: bytes, folder: Path) -> None:
    for record in manifest.read(_put(case, folder / "case.jsonl")):
        assert (folder / f"{record.key}.png").resolve().is_relative_to(folder.resolve()), record.key
        with contextlib.suppress(ValueError):  # no picture there
            read_image(dataclasses.replace(record, path=str(folder / "case.jsonl")))


def _config(case: bytes, _: Path) -> None:
    override(from_json(case.decode("utf-8", "replace"), "case"), ["steps=3"])


def _overrides(case: bytes, _: Path) -> None:
    override(recipe("nano-joint"), case.decode("utf-8", "replace").split("\x1f"))


def _prompt(case: bytes, folder: Path) -> None:
    prompt = read_prompt(_put(case, folder / "case.json"))
    make_form(prompt, seed=5, settings=["2.cfg=7"]).filled("x.png")
    assert make_form(prompt, input_node="1", output_node="3").sha256


def _assignments(case: bytes, _: Path) -> None:
    first, *settings = case.decode("utf-8", "replace").split("\x1f")
    make_form(PROMPT, settings=settings, input_node=first or None)


def _annotations(case: bytes, folder: Path) -> None:
    for picture in read_annotations(_put(case, folder / "case.json")).values():
        assert all(word.box_px[2] - word.box_px[0] < 2**26 for word in picture.words)


def _restored(case: bytes, folder: Path) -> None:
    path = _put(case, folder / "restore.json")
    workflow = Workflow(file="w.json", sha256="ab", settings=(), input_node="1", output_node="3")
    found = FolderRecord.open(folder, workflow, again=False)
    for key in ("a", "b"):
        found.state(key, path, path)
    found.write()


def _history(case: bytes, _: Path) -> None:
    try:
        read_ending(parse_json(case), _form())
    except NoResult as error:
        raise ValueError(f"expected a result, got {error}") from error
    except ValueError as error:
        raise ValueError(f"expected a history, got {error}") from error


@functools.cache
def _form() -> Any:
    return make_form(PROMPT)


def _refusal(case: bytes, _: Path) -> None:
    with contextlib.suppress(ValueError):
        assert len(describe_refusal(parse_json(case), PROMPT)) <= 300


def _result(case: bytes, _: Path) -> None:
    try:
        read_result(case, "case.png")
    except NoResult as error:
        raise ValueError(f"expected a picture, got {error}") from error


def _picture(case: bytes, folder: Path) -> None:
    read_image(_put(case, folder / "case.png"))


def _captions(case: bytes, folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    captioner: Any = SimpleNamespace(folder=folder, text="p", max_tokens=5)
    _resume(_put(case, folder / "case.part.jsonl"), captioner)


def _caption(case: bytes, folder: Path) -> None:
    CaptionFile(source=_put(case, folder / "case.json"), is_json=True).read()
    CaptionFile(source=folder / "case.json", is_json=False).read()


def _shard(case: bytes, folder: Path) -> None:
    found = find([_put(case, folder / "case.tar")])
    for key, source in found.pictures:
        assert (folder / f"{key}.png").resolve().is_relative_to(folder.resolve()), key
        assert source.path == str((folder / "case.tar").resolve())
    build(found.pictures, val_frac=0.0, min_side_px=1, lq=found.lq, captions=found.captions)


def _server(case: bytes, _: Path) -> None:
    server_url(case.decode("utf-8", "replace"))


def targets(canary: Path) -> list[Target]:
    """All of them; pickles would make or change `canary`."""
    texts = st.one_of(
        st.sampled_from((*SETTINGS, *(f"{name}={value}" for name in ("lr", "steps", "recipe") for value in LITERALS))),
        st.text(max_size=30),
    )
    joined = st.lists(texts, max_size=3).map(lambda found: "\x1f".join(found).encode("utf-8", "replace"))
    files = st.one_of(numbers_changed(st.sampled_from(pictures())), st.sampled_from(pictures()).flatmap(broken))
    config = json.loads(to_json(recipe("nano-joint")))
    return [
        Target(
            name="manifest", cases=mutated([[RECORD], [RECORD, {**RECORD, "key": "c"}]], lines=True), read=_manifest, short=120
        ),
        Target(name="recipe file", cases=mutated([config]), read=_config, short=100),
        Target(name="--set of a recipe", cases=joined, read=_overrides, short=100),
        Target(name="workflow", cases=mutated([PROMPT]), read=_prompt, short=120),
        Target(name="--set of a workflow", cases=joined, read=_assignments, short=100),
        Target(name="annotations", cases=mutated([ANNOTATIONS]), read=_annotations, short=120),
        Target(name="restore.json", cases=mutated([RESTORED]), read=_restored, short=100),
        Target(name="server's history", cases=mutated([HISTORY]), read=_history, short=120),
        Target(name="server's refusal", cases=mutated([REFUSAL]), read=_refusal, short=60),
        Target(name="server's picture", cases=files, read=_result, short=100),
        Target(name="picture", cases=files, read=_picture, short=100),
        Target(name="captions begun", cases=mutated([PART], lines=True), read=_captions, short=60),
        Target(name="caption", cases=mutated([{"caption": "A sign."}]), read=_caption, short=60),
        Target(name="shard", cases=shards(), read=_shard, short=120),
        Target(
            name="server's address",
            cases=st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace")),
            read=_server,
            short=40,
        ),
        Target(
            name="safetensors",
            cases=safetensors_files(),
            read=lambda case, folder: _weights(case, folder / "case.safetensors"),
            short=80,
        ),
        Target(name="safetensors as a base", cases=safetensors_files(), read=_base, short=60),
        Target(name="safetensors as a VAE", cases=safetensors_files(), read=_vae, short=60),
        Target(
            name="pickle", cases=pickle_files(canary), read=lambda case, folder: _weights(case, folder / "case.bin"), short=120
        ),
    ]
