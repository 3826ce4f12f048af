"""The subgraph blueprint: in the node library, dragged to the canvas, run."""

from __future__ import annotations

import io
import json

import pytest
from hostrun.client import Client
from PIL import Image
from support.patience import PATIENCE_S
from support.workflows import ROOT, api_prompt

pytestmark = pytest.mark.host
NAME = "FaithDiff Upscale"
WIDGETS = ["preset", "scale", "prompt", "weights", "checkpoint", "seed"]


@pytest.fixture(scope="module")
def inserted(frontend):
    node = frontend.ask("insertBlueprint", name=NAME)
    frontend.photograph("blueprint")
    return node


def test_the_server_lists_the_blueprint(frontend):
    with Client(frontend.server.url) as client:
        ours = [e for e in client.get("/global_subgraphs").values() if e["source"] == "custom_node"]
    assert [entry["name"] for entry in ours] == [path.stem for path in (ROOT / "subgraphs").glob("*.json")] == [NAME]


def test_the_blueprint_is_dragged_in(inserted):
    assert inserted["title"] == NAME
    assert inserted["inputs"] == ["image", *WIDGETS]
    assert list(inserted["widgets"]) == WIDGETS
    assert inserted["outputs"] == ["IMAGE"]
    assert inserted["problems"] == []


def test_the_blueprint_is_what_the_template_has(inserted):
    layout = json.loads((ROOT / "tools" / "frontend" / "layouts" / "faithdiff_upscale.json").read_text(encoding="utf-8"))
    (source,) = [part for part in layout["subgraphs"].values() if part["title"] == NAME]
    prompt = api_prompt("faithdiff_upscale")
    assert sorted(inserted["inside"]) == sorted(prompt[number]["class_type"] for number in source["nodes"])
    for shown in source["shown"]:
        assert inserted["widgets"][shown["label"]] == prompt[shown["node"]]["inputs"][shown["input"]], shown["label"]


def test_the_blueprint_runs(frontend, inserted):
    """On the nano model, which has no text encoders: two nodes inside give way to its own."""
    files = {"model": "nano_faithdiff.safetensors", "vae": "nano_vae.safetensors", "photo": "example.png"}
    frontend.ask("swapForNano", **files, scale=0.5, steps=2)
    ran = frontend.ask("run", timeout_s=PATIENCE_S)
    frontend.photograph("blueprint_run")
    assert ran["outcome"] == "success"
    assert ran["complaints"] == []
    with Client(frontend.server.url) as client:
        saved = [picture for picture in ran["pictures"] if picture["type"] == "output"]
        (png,) = client.images({"outputs": {"0": {"images": saved}}})
    with Image.open(frontend.server.input_folder / files["photo"]) as photo, Image.open(io.BytesIO(png)) as restored:
        assert restored.size == (photo.width // 2, photo.height // 2)
        assert len(set(restored.convert("RGB").tobytes())) > 10, "a picture of one colour"
