"""Downloads on a real server, from a local hub: the page's addresses, the node in the queue, who may ask for what."""

from __future__ import annotations

import io
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostrun.client import Client, PromptFailed, PromptRejected
from hostrun.local_http import open_local
from hostrun.server import HostServer
from PIL import Image
from support.fake_hub import FakeHub
from support.hub_files import FAITHDIFF
from support.hub_weights import BIN, HALF, SDXL, SDXL_BYTES, released_and_checkpoint
from support.patience import PATIENCE_S
from support.workflows import node_of, resized

ADDRESS = "/faithdiff/weights"
CHOICE = "FaithDiff"


@pytest.fixture(scope="module")
def on_the_hub() -> dict[str, dict[str, bytes]]:
    return released_and_checkpoint()


@pytest.fixture
def hub(server: HostServer, server_hub: FakeHub, on_the_hub: dict[str, dict[str, bytes]]) -> Iterator[FakeHub]:
    """The server's hub with FaithDiff and a checkpoint; afterwards nothing of it is left, here or there."""
    server_hub.files = on_the_hub
    server_hub.asked.clear()
    yield server_hub
    server_hub.files, server_hub.slow_s, server_hub.status, server_hub.hash_of = {}, 0.0, None, None
    with Client(server.url) as client:
        client.post(f"{ADDRESS}/cancel", {})
        ended(client)
    for path in [*folder(server).glob("FaithDiff*"), *folder(server, "checkpoints").glob("*")]:
        path.unlink()


def folder(server: HostServer, kind: str = "faithdiff") -> Path:
    return server.options.base / "models" / kind


def names(server: HostServer) -> list[str]:
    """Of our files: other tests of the session keep theirs in the same folder."""
    return sorted(path.name for path in folder(server).glob("*FaithDiff*"))


def ended(client: Client) -> dict[str, Any]:
    """How the page's download has ended."""
    return until(client, lambda job: job["outcome"] not in ("running", "cancelling"))


def until(client: Client, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while (job := client.get(ADDRESS)["job"]) is not None and not holds(job):
        assert time.monotonic() < end, job
        time.sleep(0.02)
    return job or {}


def refused(server: HostServer, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    """Status and text of an answer that is none of success."""
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json", **headers})
    with pytest.raises(urllib.error.HTTPError) as answer:
        open_local(request, timeout_s=60)
    return answer.value.code, answer.value.read().decode()


def test_at_the_start_there_is_a_folder_and_nobody_is_asked(server: HostServer, client: Client, hub: FakeHub) -> None:
    before = names(server)
    state = client.get(ADDRESS)
    assert [(file["id"], file["found"]) for file in state["files"]] == [("faithdiff", None), ("checkpoint", None), ("vae", None)]
    assert state["files"][0]["folder"] == str(folder(server)) and client.get(f"/api{ADDRESS}")["files"] == state["files"]
    assert names(server) == before == [] and hub.asked == []


@pytest.mark.parametrize("path", ["/look", "/start", "/cancel"])
def test_another_sites_page_may_not(server: HostServer, hub: FakeHub, path: str) -> None:
    body = json.dumps({"ids": ["faithdiff"]}).encode()
    assert refused(server, ADDRESS + path, body, Origin="http://evil.example")[0] == 403
    request = urllib.request.Request(server.url + ADDRESS + path)  # what an image on such a page can do
    with pytest.raises(urllib.error.HTTPError, match="405|404"):
        open_local(request, timeout_s=60)
    assert hub.asked == [] and names(server) == []


@pytest.mark.parametrize(
    "body",
    [{"ids": ["https://example.org/x.bin"]}, {"ids": ["../../x"]}, {"ids": []}, {"ids": "faithdiff"}, {}, [], {"ids": [1]},
     {"ids": ["faithdiff"], "keep_bin": 1}, {"url": "https://example.org/x.bin", "ids": [None]}],
)  # fmt: skip
def test_nothing_but_ids_of_the_table(server: HostServer, hub: FakeHub, body: Any) -> None:
    status, text = refused(server, f"{ADDRESS}/start", json.dumps(body).encode())
    assert status == 400 and "expected" in json.loads(text)["error"]
    assert refused(server, f"{ADDRESS}/start", b"{")[0] == 400
    assert hub.asked == [] and names(server) == []


def test_looked_at_started_cancelled_and_gone_on_with(server: HostServer, client: Client, hub: FakeHub) -> None:
    size = len(hub.files[FAITHDIFF][BIN])
    sizes = client.post(f"{ADDRESS}/look", {})["sizes"]
    assert sizes["faithdiff"]["size_bytes"] == size and sizes["checkpoint"]["needs_bytes"] == SDXL_BYTES
    assert "expected sdxl_vae.safetensors in madebyollin/sdxl-vae-fp16-fix" in sizes["vae"]["error"]
    assert hub.transfers() == [] and names(server) == []
    hub.slow_s = 0.05
    client.post(f"{ADDRESS}/start", {"ids": ["checkpoint", "faithdiff"]})
    running = until(client, lambda job: job["done_bytes"] > 2**20)
    assert running["outcome"] == "running" and re.match(rf"{BIN}: downloading [\d.]+ MB of [\d.]+ MB", running["line"])
    assert refused(server, f"{ADDRESS}/start", b'{"ids": ["vae"]}')[0] == 409
    client.post(f"{ADDRESS}/cancel", {})
    assert ended(client)["outcome"] == "cancelled"
    (part,) = names(server)
    have = (folder(server) / part).stat().st_size
    assert part.startswith(BIN) and part.endswith(".part") and 0 < have < size
    hub.slow_s = 0
    client.post(f"{ADDRESS}/start", {"ids": ["checkpoint", "faithdiff"]})
    done = ended(client)
    assert (done["outcome"], done["names"]) == ("done", [HALF, SDXL])
    assert hub.transfers()[1]["range"] == f"bytes={have}-" and names(server) == [HALF]
    info = client.object_info()
    assert HALF in str(info["FaithDiffLoadModel"]["input"]["required"]["model_name"])
    assert SDXL in str(info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"])


def test_what_goes_wrong_is_told(server: HostServer, client: Client, hub: FakeHub) -> None:
    hub.hash_of = b"other"
    client.post(f"{ADDRESS}/start", {"ids": ["checkpoint"]})
    job = ended(client)
    assert job["outcome"] == "failed" and "expected SHA-256" in job["error"]
    assert list(folder(server, "checkpoints").iterdir()) == []
    hub.status = (401, "GatedRepo")
    status, text = refused(server, f"{ADDRESS}/start", b'{"ids": ["checkpoint"]}')
    assert status == 400 and "wants an agreement" in text


def get_weights(**inputs: Any) -> dict[str, Any]:
    return {"class_type": "FaithDiffGetWeights", "inputs": {"file": CHOICE, "keep_bin": False, **inputs}}


def test_without_weights_the_message_says_how_to_get_them(client: Client, hub: FakeHub, demo_prompt: dict[str, Any]) -> None:
    demo_prompt[node_of(demo_prompt, "FaithDiffLoadModel")]["inputs"]["model_name"] = BIN
    with pytest.raises(PromptRejected, match="press Get weights at the lower edge of the page or on Load FaithDiff Model, run"):
        client.queue(demo_prompt)
    assert hub.asked == []


def test_the_node_gives_the_loader_its_file(
    server: HostServer, client: Client, hub: FakeHub, demo_prompt: dict[str, Any]
) -> None:
    """From no weights to a picture in one run; a second run asks nobody."""
    demo_prompt = resized(demo_prompt, 96, 64)
    demo_prompt["get"] = get_weights()
    demo_prompt[node_of(demo_prompt, "FaithDiffLoadModel")]["inputs"]["model_name"] = ["get", 0]
    demo_prompt[node_of(demo_prompt, "FaithDiffSampler")]["inputs"]["steps"] = 1
    prompt_id = client.queue(demo_prompt)
    history = client.wait(prompt_id, PATIENCE_S)
    restored = Image.open(io.BytesIO(client.images(history)[-1]))
    assert restored.size == (96, 64) and len(set(restored.convert("RGB").tobytes())) > 10
    assert names(server) == [HALF] and len(hub.transfers()) == 1
    assert f"{HALF} is in {folder(server)}" in str(history["outputs"]["get"])
    asked = len(hub.asked)
    client.run({"get": get_weights()}, PATIENCE_S)
    assert len(hub.asked) == asked


@pytest.mark.long
def test_the_node_is_interrupted_and_goes_on(server: HostServer, client: Client, hub: FakeHub) -> None:
    hub.slow_s = 0.05
    prompt_id = client.queue({"get": get_weights(keep_bin=True)})
    client.wait_for(lambda: any(path.stat().st_size for path in folder(server).glob("*.part")), PATIENCE_S, "a part")
    client.interrupt()
    with pytest.raises(PromptFailed, match="interrupted in node get"):
        client.wait(prompt_id, PATIENCE_S)
    hub.slow_s = 0
    client.run({"get": get_weights(keep_bin=True)}, PATIENCE_S)
    assert "range" in hub.transfers()[-1] and names(server) == [BIN, HALF]


@pytest.mark.long
def test_without_the_hosts_origin_check_the_addresses_do_nothing(
    server: HostServer, server_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from hostrun.server import free_port

    options = dataclasses.replace(
        server.options, base=tmp_path / "other", port=free_port(), extra_arguments=("--enable-cors-header",)
    )
    monkeypatch.setenv("HF_ENDPOINT", server_hub.url)
    server_hub.asked.clear()
    (tmp_path / "other").mkdir()
    with HostServer(options) as other:
        for path in ("/look", "/start", "/cancel"):
            status, text = refused(other, ADDRESS + path, b'{"ids": ["faithdiff"]}')
            assert status == 403 and "--enable-cors-header" in text
    assert server_hub.asked == []
