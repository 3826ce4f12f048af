"""A folder through a real server's queue: the same prompt posted once for each picture, and what the page is told meanwhile."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hostrun.client import Client, PromptFailed, PromptRejected
from hostrun.server import HostServer
from PIL import Image

LOADING: dict[str, Any] = {
    "folder": "trip", "pattern": "*", "sub_folders": True, "save_to": "restored/%folder%", "retry_failed": False, "again": 0,
}  # fmt: skip
SAVING = {"format": "as source", "bit_depth": "as source", "color_profile": "as source", "quality": 95, "metadata": True}
WIDE_PX = 9000
"""Twice that is more than FaithDiff Upscale To Target makes."""


def prompt(**changes: Any) -> dict[str, Any]:
    upscale = {"image": ["1", 0], "target": "scale factor", "target.factor": 2.0}
    return {
        "1": {"class_type": "FaithDiffLoadFolder", "inputs": {**LOADING, **changes}},
        "2": {"class_type": "FaithDiffUpscale", "inputs": upscale},
        "3": {"class_type": "FaithDiffSaveFolder", "inputs": {"image": ["2", 0], "folder": ["1", 2], "workflow": True, **SAVING}},
    }


def numbers(client: Client, **changes: Any) -> dict[str, int]:
    query = {**LOADING, "sub_folders": "true", "retry_failed": "false", **changes}
    answer = client.get(f"/faithdiff/folder?{urlencode(query)}")
    return {name: answer[name] for name in ("count", "done", "failed", "left")}


def test_one_prompt_for_each_picture(server: HostServer, client: Client) -> None:
    folder: Path = server.input_folder / "trip"
    names = ("a #1.png", "sub/ü 50%.jpg", "y.webp")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (90, 120, 60)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (WIDE_PX, 1)).save(folder / "wide.png")
    assert numbers(client) == {"count": 5, "done": 0, "failed": 0, "left": 5}
    ids = [client.queue(prompt()) for _ in range(5)]
    endings: list[Any] = []
    for prompt_id in ids:
        try:
            endings.append(client.wait(prompt_id, 60)["outputs"])
        except PromptFailed as error:
            endings.append(error)
    told = [str(each) if isinstance(each, PromptFailed) else each["1"]["text"][0].splitlines()[0] for each in endings]
    assert told[0] == "1 of 5: a #1" and told[1] == "3 of 5: sub/ü 50%" and told[3] == "5 of 5: y"
    assert "node 2 (FaithDiffUpscale) failed: expected" in told[2], "its own message, as ever"
    assert told[4] == "3 of 5 done, 2 failed, none left; switch on retry_failed to try them once more"
    text = endings[4]["1"]["text"][0]
    assert "failed: broken.png: expected a readable picture" in text and "failed: wide.png: FaithDiffUpscale: expected" in text
    assert [m["type"] for m in client.of(ids[4]) if "error" in m["type"]] == [] and "3" not in endings[4]
    saved = [
        m["data"]["output"]["faithdiff_folder"][0] for i in ids for m in client.of(i, "executed") if m["data"]["node"] == "3"
    ]
    assert [(each["done"], each["left"], each["loader"]) for each in saved] == [(1, 4, "1"), (2, 2, "1"), (3, 0, "1")]
    assert numbers(client) == {"count": 5, "done": 3, "failed": 2, "left": 0}
    assert numbers(client, retry_failed="true")["left"] == 2 and numbers(client, again=1)["left"] == 5
    results = server.options.base / "output" / "restored" / "trip"
    for name in names:
        with Image.open(results / name) as picture:
            assert picture.size == (32, 24)


def test_what_is_wrong_is_told_before_the_run(client: Client) -> None:
    with pytest.raises(PromptRejected, match="expected a folder in ComfyUI's input folder, got 'nowhere', which is not there"):
        client.queue(prompt(folder="nowhere"))
    with pytest.raises(PromptRejected, match="expected a folder inside ComfyUI's output folder, got '../up'"):
        client.queue(prompt(folder=".", save_to="../up"))
    with pytest.raises(urllib.error.HTTPError) as told:
        client.get("/faithdiff/folder?folder=../output")
    assert told.value.code == 400 and b"expected a folder inside ComfyUI's input folder" in told.value.read()
