"""The workflows that come with the pack, and the files that they ask for."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workflows"
API_FOLDER = FOLDER / "api"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
API_NAMES = sorted(path.stem for path in API_FOLDER.glob("*.json"))
WEIGHTS = (".safetensors", ".sft", ".bin", ".ckpt", ".pt", ".pth")
# Input of a loader -> folder under models/. A name that some loaders share is told apart by the class.
FOLDER_OF = {
    "ckpt_name": "checkpoints",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "vae_name": "vae",
    "unet_name": "diffusion_models",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
}
FOLDER_OF_CLASS = {"FaithDiffLoadModel": "faithdiff", "FaithDiffLoadNanoVAE": "faithdiff", "UpscaleModelLoader": "upscale_models"}


def api_prompt(name: str) -> dict[str, Any]:
    """The API-format prompt workflows/api/`name`.json."""
    return json.loads((API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def node_of(prompt: dict[str, Any], class_type: str) -> str:
    """The id of the only node of a class."""
    (found,) = [key for key, node in prompt.items() if node["class_type"] == class_type]
    return found


def resized(prompt: dict[str, Any], width_px: int, height_px: int) -> dict[str, Any]:
    """A copy of the demo's prompt that brings its photo to this size instead of enlarging it by a factor."""
    prompt = copy.deepcopy(prompt)
    scale = prompt[node_of(prompt, "ImageScaleBy")]
    scale["class_type"] = "ImageScale"
    scale["inputs"] = {"image": scale["inputs"]["image"], "upscale_method": "bilinear", "crop": "disabled"}
    scale["inputs"] |= {"width": width_px, "height": height_px}
    return prompt


def ui_workflow(name: str) -> dict[str, Any]:
    """The UI-format workflow workflows/`name`.json."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def ui_nodes(name: str) -> list[dict[str, Any]]:
    """The nodes of a UI-format workflow, those inside subgraphs in place of the node that stands for them."""
    workflow = ui_workflow(name)
    subgraphs = {subgraph["id"]: subgraph["nodes"] for subgraph in workflow.get("definitions", {}).get("subgraphs", [])}
    return [inner for node in workflow["nodes"] for inner in subgraphs.get(node["type"], [node])]


def weights_of(prompt: dict[str, Any]) -> set[tuple[str, str]]:
    """(folder under models/, name) of every weights file that a prompt names.

    Raises:
        KeyError: a loader that the table above does not know.
    """
    found = set()
    for node in prompt.values():
        for key, value in node["inputs"].items():
            if isinstance(value, str) and value.lower().endswith(WEIGHTS):
                found.add((FOLDER_OF_CLASS.get(node["class_type"]) or FOLDER_OF[key], value))
    return found


def is_bundled(weights: tuple[str, str]) -> bool:
    return (ROOT / "demo" / weights[1]).is_file()


def runs_as_it_comes(name: str) -> bool:
    """Whether a workflow needs no weights but those that come with the pack."""
    return all(map(is_bundled, weights_of(api_prompt(name))))


def place_stand_ins(models: Path) -> None:
    """Empty files under `models` in place of all weights that the workflows name and the pack does not bring."""
    for folder, file in set().union(*(weights_of(api_prompt(name)) for name in API_NAMES)):
        if not is_bundled((folder, file)):
            (models / folder).mkdir(parents=True, exist_ok=True)
            (models / folder / file).touch()


def place_inputs(input_folder: Path) -> None:
    """What every ComfyUI has in its input folder: pictures that a workflow loads are to be among them.

    ComfyUI brings no film. Where a workflow loads one, an empty file stands in, and a user has to choose one.
    """
    shutil.copytree(Path(os.environ["COMFYUI_PATH"]) / "input", input_folder, dirs_exist_ok=True)
    for name in API_NAMES:
        for node in api_prompt(name).values():
            if node["class_type"] == "LoadVideo":
                (input_folder / node["inputs"]["file"]).touch()
