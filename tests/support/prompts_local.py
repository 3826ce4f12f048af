"""Whole prompts of prompts_graphs.py through the host's own executor in this process, and its interrupts counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management as mm
import comfy.utils
import execution
import folder_paths
import nodes as host_nodes
from comfyui_faithdiff.nodes import FaithDiffExtension
from comfyui_faithdiff.nodes.seam import folders

from . import prompts_pack, tiny
from .prompts_graphs import Prompt
from .prompts_server import DECODER, MODEL, VAE, Ending


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Our nodes, the tests' nodes and the tiny weights, written to `folder`, are known to the host until the end of the block."""
    tiny.write_full(folder / MODEL, tiny.made_up_parts())
    tiny.write_vae(folder / VAE)
    tiny.write_decoder(folder / DECODER)
    folders.register()
    folder_paths.add_model_folder_path(folders.FOLDER, str(folder))
    nodes = {n.define_schema().node_id: n for n in (*asyncio.run(FaithDiffExtension().get_node_list()), *prompts_pack.NODES)}
    before = dict(host_nodes.NODE_CLASS_MAPPINGS)
    host_nodes.NODE_CLASS_MAPPINGS.update(nodes)
    try:
        yield
    finally:
        host_nodes.NODE_CLASS_MAPPINGS.clear()
        host_nodes.NODE_CLASS_MAPPINGS.update(before)
        folder_paths.folder_names_and_paths[folders.FOLDER][0].remove(str(folder))


def run(prompt: Prompt) -> Ending:
    """How a prompt ends; nothing of an earlier one is kept but the models in memory."""
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    assert valid, f"{error} {node_errors}"
    messages = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)  # nobody listens
    executor = execution.PromptExecutor(messages, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})
    executor.execute(prompt, "test", execute_outputs=outputs)
    if executor.success:
        return Ending(how="picture", outputs=executor.history_result["outputs"])
    kind, data = executor.status_messages[-1]
    if kind == "execution_interrupted":
        return Ending(how="stopped", node=data["node_id"])
    return Ending(
        how="error", reason=data["exception_message"].strip(), kind=data["exception_type"], node=data["node_id"],
        trace="".join(data["traceback"]),
    )  # fmt: skip


@contextmanager
def interrupted_at(check: int) -> Iterator[list[Any]]:
    """Somebody interrupts just before the `check`-th time that anybody asks for it (0: never). Gives a list that grows with each
    question. The host's bar asks as in a server, where its start-up hooks it so (H main.py, hijack_progress)."""
    plain, asked = mm.throw_exception_if_processing_interrupted, []

    def ask() -> None:
        asked.append(None)
        if len(asked) == check:
            mm.interrupt_current_processing()
        plain()

    mm.throw_exception_if_processing_interrupted = ask
    comfy.utils.set_progress_bar_global_hook(lambda *_args, **_kwargs: ask())
    try:
        yield asked
    finally:
        mm.throw_exception_if_processing_interrupted = plain
        comfy.utils.set_progress_bar_global_hook(None)
        mm.interrupt_current_processing(False)
