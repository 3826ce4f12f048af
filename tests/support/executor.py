"""A prompt through the host's own validation and execution, in this process."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import execution
import nodes as host_nodes
from comfy_api.latest import io

_objects: list = []
_kept: list = []


class GiveTestObject(io.ComfyNode):
    """What a loader would give."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="GiveTestObject", inputs=[io.Int.Input("index")], outputs=[io.AnyType.Output()])

    @classmethod
    def execute(cls, index):
        return io.NodeOutput(_objects[index])


class Keep(io.ComfyNode):
    """Keeps the list that it is given."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[io.Input] = [io.AnyType.Input("value")]
        return io.Schema(node_id="Keep", is_output_node=True, is_input_list=True, inputs=inputs)

    @classmethod
    def execute(cls, value):
        _kept.append(value)
        return io.NodeOutput()


def run_prompt(monkeypatch, prompt: dict[str, Any], node_classes: list[type[io.ComfyNode]], objects: list) -> list:
    """What the prompt's Keep nodes got, each a list. GiveTestObject hands out `objects` by their index.

    Raises:
        ValueError: the host's validation or execution found an error; with its messages.
    """
    for node in (GiveTestObject, Keep, *node_classes):
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.define_schema().node_id, node)
    _objects[:], _kept[:] = objects, []
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    if not valid or node_errors:
        raise ValueError(f"not valid: {error} {node_errors}")
    messages = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)  # nobody listens
    executor = execution.PromptExecutor(messages, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})
    executor.execute(prompt, "test", execute_outputs=outputs)
    if not executor.success:
        raise ValueError(str(executor.status_messages[-1]))
    return list(_kept)
