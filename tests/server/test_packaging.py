"""What the registry, ComfyUI-Manager and the host read: pyproject.toml as the host parses it, requirements, bundled workflows."""

from __future__ import annotations

import json
import re

import pytest
from hostrun.paths import ROOT, TOOLS
from hostrun.pins import versions
from support import workflows

UI_WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NANO = "nano_faithdiff.safetensors"


@pytest.fixture(scope="module")
def project():
    from comfy_config.config_parser import extract_node_configuration

    found = extract_node_configuration(str(ROOT))
    assert found is not None
    return found


def test_pyproject_as_the_host_reads_it(project) -> None:
    assert project.project.name == "faithdiff"
    assert re.fullmatch(r"\d+\.\d+\.\d+", project.project.version)
    assert project.project.dependencies == []
    assert project.project.supported_comfyui_version == ">=0.16.0"
    assert project.project.supported_os and project.project.supported_accelerators  # one wrong classifier blanks them all
    assert project.tool_comfy.display_name == "FaithDiff" and project.tool_comfy.publisher_id
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_nothing_is_installed_into_a_users_environment() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []


def test_every_tool_is_pinned() -> None:
    pins = dict(line.split()[0].split("==") for part in ("build", "demo", "test") for line in versions(part))
    wanted = (TOOLS / "requirements-test.txt").read_text(encoding="utf-8").splitlines()
    assert {name for name in wanted if not name.startswith("#")} <= set(pins)
    assert (pins["torch"], pins["torchvision"], pins["torchaudio"]) == ("2.11.0", "0.26.0", "2.11.0")


@pytest.mark.parametrize("path", UI_WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_tells_pack_version_and_where_models_are(path, project) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4
    loaders = 0
    nodes = workflows.ui_nodes(path.stem)
    for node in nodes:
        if node["type"] in ("MarkdownNote", "Note"):
            continue
        properties = node["properties"]
        ours = node["type"].startswith("FaithDiff")
        assert properties["cnr_id"] == ("faithdiff" if ours else "comfy-core")
        assert properties["ver"] == project.project.version if ours else properties["ver"]
        for model in properties.get("models", []):
            loaders += 1
            assert model["name"] in node["widgets_values"]
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith("/" + model["name"])
    bundled = any(NANO in (node.get("widgets_values") or []) for node in nodes)
    assert bundled or loaders >= 1  # what comes with the pack needs no download


def test_there_is_a_workflow_for_the_template_browser() -> None:
    assert "faithdiff_upscale" in [path.stem for path in UI_WORKFLOWS]
