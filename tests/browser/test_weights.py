"""From an empty models folder to a picture, by the button on the loader: in three clicks, in both ways of drawing nodes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostrun.client import Client
from PIL import Image
from support import workflows
from support.fake_hub import FakeHub
from support.hub_files import FAITHDIFF
from support.hub_weights import BIN, HALF, released_and_checkpoint
from support.patience import PATIENCE_S

pytestmark = pytest.mark.host
LABEL = "Get weights..."
SUBGRAPH = "FaithDiff Upscale"
CLICKS = 3
"""The button, Download, Run."""
SLOW_S = 0.2
"""Between pieces of a download, until the page has been seen to show one: it looks every 0.7 s."""


@pytest.fixture(scope="module")
def on_the_hub() -> dict[str, dict[str, bytes]]:
    return released_and_checkpoint()


@pytest.fixture
def no_weights(frontend: Any, server_hub: FakeHub, on_the_hub: dict[str, dict[str, bytes]]) -> Iterator[FakeHub]:
    """The server's models folder is empty, and the hub has FaithDiff and the checkpoint; afterwards all is as it was."""
    models, aside = frontend.server.options.base / "models", frontend.server.options.base / "aside"
    models.rename(aside)
    for folder in filter(Path.is_dir, aside.iterdir()):  # ComfyUI looks again at every folder that it has once listed
        (models / folder.name).mkdir(parents=True)
    (models / "faithdiff").mkdir(exist_ok=True)
    server_hub.files = on_the_hub
    yield server_hub
    server_hub.files, server_hub.slow_s, server_hub.hash_of = {}, 0.0, None
    shutil.rmtree(models)
    aside.rename(models)


def prompt() -> dict[str, Any]:
    """The demo's, by FaithDiff.bin, on a small picture."""
    wanted = workflows.resized(workflows.api_prompt("faithdiff_demo"), 96, 64)
    wanted[workflows.node_of(wanted, "FaithDiffLoadModel")]["inputs"]["model_name"] = BIN
    wanted[workflows.node_of(wanted, "FaithDiffSampler")]["inputs"]["steps"] = 1
    for node in wanted.values():
        if node["class_type"] == "FaithDiffLoadPhoto":
            node["inputs"]["image"] = "faithdiff_demo.png"
    return wanted


@pytest.mark.parametrize("nodes_2", [False, pytest.param(True, marks=pytest.mark.long)], ids=["canvas", "nodes_2"])
def test_three_clicks_from_an_empty_folder_to_a_picture(frontend: Any, no_weights: FakeHub, nodes_2: bool) -> None:
    frontend.ask("setNodes2", on=nodes_2)
    name = "weights_nodes_2" if nodes_2 else "weights"
    no_weights.slow_s = SLOW_S
    try:
        frontend.ask("openPrompt", prompt=prompt())
        before = frontend.ask("widgetsOf", type="FaithDiffLoadModel")
        assert before["names"] == ["model_name", "weight_dtype", LABEL] and before["saved"] == [BIN, "default"]
        frontend.photograph(f"{name}_1_button")
        frontend.ask("clickWidget", type="FaithDiffLoadModel", label=LABEL)
        text = frontend.ask("dialogText")
        frontend.photograph(f"{name}_2_dialog")
        size = f"{len(no_weights.files[FAITHDIFF][BIN]) / 1e6:.1f} MB"
        assert size in text and "https://huggingface.co/jychen9811/FaithDiff" in text and "of room" in text
        frontend.ask("pressInDialog", name="Download")
        frontend.ask("progressLine")
        frontend.photograph(f"{name}_3_progress")
        no_weights.slow_s = 0.0
        frontend.ask("dialogGone")
        frontend.photograph(f"{name}_4_done")
        after = frontend.ask("widgetsOf", type="FaithDiffLoadModel")
        assert after["names"] == ["model_name", "weight_dtype"] and after["saved"] == [BIN, "default"]
        ran = frontend.ask("run", timeout_s=PATIENCE_S)
        frontend.photograph(f"{name}_5_run")
        assert (ran["outcome"], ran["complaints"]) == ("success", [])
        assert not frontend.ask("widgetsOf", type="FaithDiffLoadModel")["marked"]
        assert frontend.ask("clicks") == CLICKS
    finally:
        frontend.ask("setNodes2", on=False)
    assert [path.name for path in Path(frontend.server.options.base, "models", "faithdiff").iterdir()] == [HALF]
    with Client(frontend.server.url) as client:
        saved = [picture for picture in ran["pictures"] if picture["type"] == "output"]
        with Image.open(io.BytesIO(client.images({"outputs": {"0": {"images": saved}}})[-1])) as picture:
            assert picture.size == (96, 64)


@pytest.mark.long
def test_cancelled_wrong_and_gone_on_with(frontend: Any, no_weights: FakeHub) -> None:
    no_weights.slow_s = SLOW_S
    frontend.ask("openPrompt", prompt=prompt())
    frontend.ask("clickWidget", type="FaithDiffLoadModel", label=LABEL)
    frontend.ask("dialogText")
    frontend.ask("pressInDialog", name="Download")
    assert "Cancel" in frontend.ask("progressLine")
    frontend.ask("pressInDialog", name="Cancel")
    assert "Cancelled. What has come is kept" in frontend.ask("dialogError")
    no_weights.slow_s, no_weights.hash_of = 0.0, b"another"
    frontend.ask("pressInDialog", name="Go on")
    frontend.ask("dialogText")
    frontend.ask("pressInDialog", name="Download")
    assert "expected SHA-256" in frontend.ask("dialogError")
    frontend.photograph("weights_wrong_hash")
    no_weights.hash_of = None
    frontend.ask("pressInDialog", name="Go on")
    frontend.ask("dialogText")
    frontend.ask("pressInDialog", name="Download")
    frontend.ask("dialogGone")
    assert frontend.ask("widgetsOf", type="FaithDiffLoadModel")["saved"] == [BIN, "default"]


@pytest.mark.long
@pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes_2"])
def test_a_template_without_weights_is_offered_them(frontend: Any, no_weights: FakeHub, nodes_2: bool) -> None:
    frontend.ask("setNodes2", on=nodes_2)
    try:
        frontend.ask("openPrompt", prompt=prompt())
        frontend.ask("openTemplate", name="faithdiff_upscale")
        frontend.photograph("weights_template_nodes_2" if nodes_2 else "weights_template")
        kept = json.loads((workflows.FOLDER / "faithdiff_upscale.json").read_text(encoding="utf-8"))
        (folded,) = [node for node in kept["nodes"] if node.get("title") == SUBGRAPH]
        assert frontend.ask("widgetsOf", type=SUBGRAPH)["saved"] == folded["widgets_values"]
        assert frontend.ask("offered") == 1
        frontend.ask("pressOffer", name=LABEL)
        text = frontend.ask("dialogText")
        assert "FaithDiff" in text and "RealVisXL" in text
        frontend.ask("pressInDialog", name="Download")
        frontend.ask("dialogGone")
        after = frontend.ask("widgetsOf", type=SUBGRAPH)
        assert frontend.ask("offered") == 0
        assert (after["saved"], after["marked"]) == (folded["widgets_values"], False)
        frontend.ask("openTemplate", name="faithdiff_old_photo")  # FaithDiff.bin is gone, and its fp16 file stands in for it
        frontend.photograph("weights_next_template")
        assert frontend.ask("offered") == 0 and not frontend.ask("widgetsOf", type=SUBGRAPH)["marked"]
    finally:
        frontend.ask("setNodes2", on=False)
