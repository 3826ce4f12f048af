"""A folder through the host's own executor and queue: what fails or is stopped behind the node, what is cached."""

from __future__ import annotations

import asyncio
import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management as mm
import execution
import nodes as host_nodes
import pytest
from comfy_api.latest import io
from comfyui_faithdiff.nodes.load_folder import FaithDiffLoadFolder
from comfyui_faithdiff.nodes.save_folder import FaithDiffSaveFolder
from support.folder_nodes import LOADING, SAVING, Folders

pytestmark = pytest.mark.host
_ends: dict[str, Exception] = {}


class EndsBadly(io.ComfyNode):
    """Hands a picture on, or raises what `_ends` has for its name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EndsBadly", inputs=[io.Image.Input("image"), io.String.Input("name")], outputs=[io.Image.Output()]
        )

    @classmethod
    def execute(cls, image, name):
        if name in _ends:
            raise _ends[name]
        return io.NodeOutput(image)


PROMPT: dict[str, Any] = {
    "1": {"class_type": "FaithDiffLoadFolder", "inputs": LOADING},
    "2": {"class_type": "EndsBadly", "inputs": {"image": ["1", 0], "name": ["1", 4]}},
    "3": {"class_type": "FaithDiffSaveFolder", "inputs": {"image": ["2", 0], "folder": ["1", 2], **SAVING}},
}


class Host:
    """The host's queue and executor; only nobody listens."""

    def __init__(self) -> None:
        messages = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None, queue_updated=lambda: None)
        self.queue = execution.PromptQueue(messages)
        self.executor = execution.PromptExecutor(messages, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})
        self.client_id, self.send_progress_text = None, messages.send_sync
        self.prompt_queue = self.queue

    def run(self, number: int) -> dict[str, Any]:
        """Post the same prompt, run it as the host's main.py does, give its entry in the history."""
        prompt_id, prompt = f"prompt {number}", copy.deepcopy(PROMPT)  # the host notes things in it
        valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt(prompt_id, prompt, None))
        assert valid, (error, node_errors)
        self.queue.put((number, prompt_id, prompt, {}, outputs, {}))
        item, item_id = self.queue.get()
        self.executor.execute(item[2], prompt_id, item[3], item[4])
        ended = "success" if self.executor.success else "error"
        status = execution.PromptQueue.ExecutionStatus(ended, self.executor.success, self.executor.status_messages)
        self.queue.task_done(item_id, self.executor.history_result, status=status)
        return self.queue.get_history(prompt_id)[prompt_id]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    for node in (EndsBadly, FaithDiffLoadFolder, FaithDiffSaveFolder):
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.define_schema().node_id, node)
    host = Host()
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=host)))
    _ends.clear()
    return host


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    return Folders(tmp_path, monkeypatch)


def told(entry: dict[str, Any], node: str) -> str:
    return entry["outputs"][node]["text"][0]


def test_the_same_prompt_again_takes_the_next_and_ends_quietly(host: Host, folders: Folders) -> None:
    folders.add("a.png", "b.png")
    entries = [host.run(number) for number in range(3)]
    assert [told(entry, "1").splitlines()[0] for entry in entries] == ["1 of 2: a", "2 of 2: b", "All 2 are done"]
    assert "1 of 2 done, 1 left" in told(entries[0], "3") and "3" not in entries[2]["outputs"]
    assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 3
    assert folders.made() == {"a.png", "b.png"}


def test_what_fails_later_is_named_and_not_tried_for_ever(host: Host, folders: Folders) -> None:
    folders.add("a.png", "b.png", "c.png")
    _ends["a"] = mm.OOM_EXCEPTION("no room") if isinstance(mm.OOM_EXCEPTION, type) else RuntimeError("no room")
    entries = [host.run(number) for number in range(4)]
    assert [entry["status"]["status_str"] for entry in entries] == ["error", "success", "success", "success"]
    assert folders.made() == {"b.png", "c.png"}
    assert told(entries[1], "1").splitlines()[-1] == "failed: a.png: EndsBadly: no room"
    assert told(entries[3], "1").startswith("2 of 3 done, 1 failed, none left; switch on retry_failed")
    host.queue.wipe_history()
    assert "1 failed" in told(host.run(9), "1"), "it is written down, too"


def test_one_that_was_stopped_is_no_failure_and_comes_last(host: Host, folders: Folders) -> None:
    folders.add("a.png", "b.png")
    _ends["a"] = mm.InterruptProcessingException()
    first = host.run(0)
    assert [event for event, _ in first["status"]["messages"]][-1] == "execution_interrupted"
    _ends.clear()
    assert told(host.run(1), "1").startswith("2 of 2: b")
    last = host.run(2)
    assert told(last, "1").startswith("1 of 2: a") and "All 2 are done" in told(last, "3")
    assert "failed" not in told(last, "1")
