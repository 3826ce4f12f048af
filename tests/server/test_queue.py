"""The pack inside a running ComfyUI: nodes, workflows, progress, interrupt and bad prompts, through the server's own API."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostrun.client import Client, PromptFailed, PromptRejected
from hostrun.paths import PACK_NAME, ROOT
from hostrun.server import HostServer
from PIL import Image
from support.patience import PATIENCE_S
from support.workflows import node_of, resized

NODES = (
    "FaithDiffLoadModel", "FaithDiffEncodeLQ", "FaithDiffAlignLatent", "FaithDiffSampler", "FaithDiffTileModel", "FaithDiffPlan",
    "FaithDiffDecode", "FaithDiffColorFix", "FaithDiffReport", "FaithDiffAttribution",
)  # fmt: skip
HELPERS = ("FaithDiffLoadNanoVAE", "FaithDiffNoPrompt")


def inputs_of(prompt: dict[str, Any], class_type: str) -> dict[str, Any]:
    return prompt[node_of(prompt, class_type)]["inputs"]


def quicker(prompt: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """The same prompt with few steps on a small image; a seed of its own keeps the host's cache out of the way."""
    prompt = resized(prompt, 128, 128)
    inputs_of(prompt, "FaithDiffSampler").update(seed=seed, steps=2)
    return prompt


def test_pack_is_imported_without_complaint(server: HostServer) -> None:
    log = server.log()
    assert "IMPORT FAILED" not in log
    assert f"/{PACK_NAME}" in log


def test_a_proxy_in_the_environment_is_not_asked(server: HostServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Client(server.url) as client:
        assert client.get("/system_stats")["system"]


@pytest.mark.parametrize("node", [*NODES, *HELPERS])
def test_every_node_is_there_with_a_tooltip_on_every_input_and_output(node: str, client: Client) -> None:
    info = client.get(f"/object_info/{node}")[node]
    assert info["python_module"] == f"custom_nodes.{PACK_NAME}"
    assert info["display_name"] and info["description"]
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    assert inputs
    assert [name for name, (_, *options) in inputs.items() if not (options and options[0].get("tooltip"))] == []
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


def test_workflows_are_in_the_template_browser(client: Client) -> None:
    names = client.get("/workflow_templates")[PACK_NAME]
    assert "faithdiff_upscale" in names
    for name in names:
        workflow = client.get(f"/api/workflow_templates/{PACK_NAME}/{name}.json")
        assert workflow["version"] == 0.4 and workflow["nodes"]


def test_demo_prompt_restores_the_photo(client: Client, server: HostServer, demo_prompt: dict[str, Any]) -> None:
    prompt_id = client.queue(demo_prompt)
    history = client.wait(prompt_id, PATIENCE_S)
    restored = Image.open(io.BytesIO(client.images(history)[-1]))
    photo = server.input_folder / inputs_of(demo_prompt, "FaithDiffLoadPhoto")["image"]
    factor = inputs_of(demo_prompt, "ImageScaleBy")["scale_by"]
    assert restored.size == tuple(round(side * factor) for side in Image.open(photo).size)
    _assert_progress(client, prompt_id, demo_prompt)
    _assert_resembles(restored, photo)


def _assert_progress(client: Client, prompt_id: str, prompt: dict[str, Any]) -> None:
    """Every node was announced, or was in the host's cache; and the sampler counted its steps upwards to the end."""
    announced = {message["data"]["node"] for message in client.of(prompt_id, "executing")}
    cached = {node for message in client.of(prompt_id, "execution_cached") for node in message["data"]["nodes"]}
    assert set(prompt) <= announced | cached
    sampler = node_of(prompt, "FaithDiffSampler")
    counts = [m["data"] for m in client.of(prompt_id, "progress") if m["data"]["node"] == sampler]
    values = [count["value"] for count in counts]
    steps = prompt[sampler]["inputs"]["steps"]
    assert values == sorted(values) and values[-1] == steps  # the host leaves some out: their number says nothing
    assert {count["max"] for count in counts} == {steps}


def _assert_resembles(restored: Image.Image, photo: Path) -> None:
    """Correlation of the brightness of 16x16 thumbnails: a restored photo shows the same scene, however well it is restored.

    Weights after a first short training, whose pictures were noise to the eye, came to 0.46 and 0.75; a clean photo to 0.999."""
    small = [picture.convert("L").resize((16, 16), Image.Resampling.BOX) for picture in (restored, Image.open(photo))]
    a, b = (np.asarray(picture, float).ravel() for picture in small)
    assert np.corrcoef(a, b)[0, 1] > 0.9


def test_interrupt_stops_the_prompt_and_the_next_one_runs(client: Client, demo_prompt: dict[str, Any]) -> None:
    """Within how many steps it stops: test_queue_faults.py, which can count them. The host leaves out some that are quick."""
    long = resized(demo_prompt, 256, 256)
    inputs_of(long, "FaithDiffSampler").update(seed=11, steps=1000)
    sampler = node_of(long, "FaithDiffSampler")
    prompt_id = client.queue(long)

    def steps_done() -> int:
        return max((m["data"]["value"] for m in client.of(prompt_id, "progress") if m["data"]["node"] == sampler), default=0)

    client.wait_for(lambda: steps_done() >= 2, PATIENCE_S, "second step")
    client.interrupt()
    with pytest.raises(PromptFailed, match="interrupted in node"):
        client.wait(prompt_id, PATIENCE_S)
    assert steps_done() < 1000
    assert client.images(client.run(quicker(demo_prompt, seed=12)))


REJECTED = {
    "unknown node": ("FaithDiffSampler", "class_type", "FaithDiffNoSuchNode"),
    "missing model": ("FaithDiffLoadModel", "model_name", "no_such_file.safetensors"),
    "steps out of range": ("FaithDiffSampler", "steps", 0),
    "unknown colour fix": ("FaithDiffColorFix", "method", "magic"),
    "strength that is no number": ("FaithDiffAlignLatent", "strength", "strong"),
    "image missing": ("FaithDiffEncodeLQ", "image", None),
}


@pytest.mark.parametrize("case", REJECTED)
def test_bad_prompt_is_rejected_with_a_readable_reason(case: str, client: Client, demo_prompt: dict[str, Any]) -> None:
    class_type, name, value = REJECTED[case]
    node = node_of(demo_prompt, class_type)
    if name == "class_type":
        demo_prompt[node]["class_type"] = value
    elif value is None:
        del demo_prompt[node]["inputs"][name]
    else:
        demo_prompt[node]["inputs"][name] = value
    with pytest.raises(PromptRejected) as rejected:
        client.queue(demo_prompt)
    text = str(rejected.value)
    assert text.startswith("the prompt was rejected: ")
    # For an unknown class the server tells the node's title and id.
    assert (f"not found. The custom node may not be installed. Node ID '#{node}'" if name == "class_type" else name) in text
    assert "Traceback" not in text


BAD_FILES = {
    "text.safetensors": b"not a model, a letter",
    "broken_header.safetensors": b"\x10\x00\x00\x00\x00\x00\x00\x00{broken json}   ",
    "empty.safetensors": b"",
    "text.bin": b"not a pickle, a letter",
}


def test_bad_files_fail_in_one_line_and_the_server_lives_on(
    client: Client, server: HostServer, demo_prompt: dict[str, Any]
) -> None:
    folder = server.options.base / "models" / "faithdiff"
    folder.mkdir(exist_ok=True)
    for name, contents in BAD_FILES.items():
        (folder / name).write_bytes(contents)
        prompt = json.loads(json.dumps(demo_prompt))
        inputs_of(prompt, "FaithDiffLoadModel")["model_name"] = name
        with pytest.raises(PromptFailed) as failed:
            client.run(prompt)
        message = failed.value.message["data"]
        assert message["exception_type"] == "ValueError"
        reason = message["exception_message"].strip()
        assert name in reason and "\n" not in reason
    assert client.images(client.run(quicker(demo_prompt, seed=13)))


def test_bundled_api_prompts_name_only_nodes_that_exist(client: Client) -> None:
    prompts = sorted((ROOT / "workflows" / "api").glob("*.json"))
    assert prompts
    known = client.object_info()
    for path in prompts:
        for key, node in json.loads(path.read_text(encoding="utf-8")).items():
            info = known.get(node["class_type"])
            assert info, f"{path.name}: node {key} is of an unknown class {node['class_type']}"
            allowed = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
            named = {name.partition(".")[0] for name in node["inputs"]}  # "target.factor" belongs to the choice "target"
            assert named <= set(allowed), f"{path.name}: node {key}"
            assert set(info["input"].get("required", {})) <= set(node["inputs"]), f"{path.name}: node {key}"
