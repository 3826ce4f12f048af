"""Every workflow passes the host's own validation. No browser, no weights: also for the oldest host that the pack promises."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from support import workflows

pytestmark = pytest.mark.host
OF_THE_FRONT_END = {"MarkdownNote"}


@pytest.fixture(scope="module")
def host():
    """The host's class of every node, the pack's among them, with empty files in place of the weights."""
    import folder_paths
    import utils.install_util  # noqa: F401 - as the host's main.py: its nodes.py puts another `utils` on the path
    import nodes as host_nodes  # isort: skip
    from comfyui_faithdiff.nodes import FaithDiffExtension

    async def load():
        await host_nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
        return await FaithDiffExtension().get_node_list()

    before, path = dict(host_nodes.NODE_CLASS_MAPPINGS), list(sys.path)
    for node in asyncio.run(load()):
        host_nodes.NODE_CLASS_MAPPINGS[node.define_schema().node_id] = node
    workflows.place_stand_ins(Path(folder_paths.models_dir))
    workflows.place_inputs(Path(folder_paths.get_input_directory()))
    shutil.copy(workflows.ROOT / "demo" / "photo_lq.png", folder_paths.get_input_directory())  # as `make demo` does
    yield host_nodes.NODE_CLASS_MAPPINGS
    host_nodes.NODE_CLASS_MAPPINGS.clear()
    host_nodes.NODE_CLASS_MAPPINGS.update(before)
    sys.path[:] = path


def _complaints(prompt):
    """What the host's validation finds; None if nothing."""
    import execution

    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("test", prompt, None))
    return None if valid and outputs and not node_errors else (error, node_errors)


@pytest.mark.parametrize("name", workflows.API_NAMES)
def test_a_prompt_is_valid(host, name):
    assert _complaints(workflows.api_prompt(name)) is None


def test_a_prompt_with_a_wrong_name_is_not(host):
    prompt = workflows.api_prompt("faithdiff_demo")
    loader = next(node for node in prompt.values() if node["class_type"] == "FaithDiffLoadModel")
    loader["inputs"]["model_name"] = "no_such_file.safetensors"
    assert "no_such_file" in str(_complaints(prompt))


@pytest.mark.parametrize("name", workflows.NAMES)
def test_a_workflow_is_made_of_its_twins_nodes(host, name):
    """That both make the same prompt is shown in the browser, in the newest host."""
    nodes = {str(n["id"]): n["type"] for n in workflows.ui_nodes(name) if n["type"] not in OF_THE_FRONT_END}
    assert nodes == {number: node["class_type"] for number, node in workflows.api_prompt(name).items()}
    assert set(nodes.values()) <= set(host)
