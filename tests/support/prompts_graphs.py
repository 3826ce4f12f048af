"""Prompts of all our nodes on the tiny model, and the part of them that one node needs."""

from __future__ import annotations

import copy
from typing import Any

from .prompts_server import MODEL, PHOTO, VAE

Prompt = dict[str, Any]
TILES = {"tile_size": 64, "tile_overlap": 0.5}
SAMPLING = {
    "seed": 5, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "positive": ["prompt", 0],
    "negative": ["prompt", 1], "latent_image": ["align", 1], "denoise": 1.0, **TILES, "tile_batch": 0, "noise_mode": "per image",
}  # fmt: skip
CAPTIONED = {"trim": True, "add_quality": False}
# Every node of ours once; 40x24 px to 80x48 px, which is two tiles of 64 px.
ALL: dict[str, tuple[str, dict[str, Any]]] = {
    "photo": ("TryImage", {"kind": "photo", "width": 40, "height": 24}),
    "load photo": ("FaithDiffLoadPhoto", {"image": PHOTO}),
    "clip": ("TryClip", {"kind": "SDXL"}),
    "load": ("FaithDiffLoadModel", {"model_name": MODEL, "weight_dtype": "default"}),
    "vae": ("FaithDiffLoadNanoVAE", {"vae_name": VAE}),
    "upscale": ("FaithDiffUpscale", {"image": ["photo", 0], "target": "scale factor", "target.factor": 2.0}),
    "encode": ("FaithDiffEncodeLQ", {"faithdiff": ["load", 1], "image": ["upscale", 0], "vae": ["vae", 0], "tile_size": 0}),
    "align": (
        "FaithDiffAlignLatent",
        {"model": ["load", 0], "features": ["encode", 0], "latent": ["encode", 1], "strength": 1.0, "start_percent": 0.0,
         "end_percent": 1.0, "start_from": "lq"},
    ),
    "prompt": ("FaithDiffPrompt", {"clip": ["clip", 0], "caption": "The image features a red car in a street.", **CAPTIONED}),
    "split": ("FaithDiffSplitTiles", {"image": ["upscale", 0], **TILES}),
    "captions": ("TryCaptions", {"number": 2}),
    "tile prompts": (
        "FaithDiffTilePrompts",
        {"clip": ["clip", 0], "captions": ["captions", 0], "latent_image": ["encode", 1], **TILES, "shared": "A photo.",
         **CAPTIONED},
    ),
    "no prompt": ("FaithDiffNoPrompt", {"model": ["align", 0]}),
    "tile model": ("FaithDiffTileModel", {"model": ["align", 0], **TILES, "tile_batch": 0}),
    "plan": (
        "FaithDiffPlan",
        {"model": ["align", 0], "latent_image": ["align", 1], "steps": 2, "cfg": 4.0, **TILES, "tile_batch": 0, "measure": False},
    ),
    "sampler": ("FaithDiffSampler", {"model": ["align", 0], **SAMPLING}),
    "decode": (
        "FaithDiffDecode",
        {"samples": ["sampler", 0], "vae": ["vae", 0], "features": ["encode", 0], "fidelity": 1.0, "decoder": "auto"},
    ),
    "colours": ("FaithDiffColorFix", {"image": ["decode", 0], "reference": ["upscale", 0], "method": "adain"}),
    "save photo": (
        "FaithDiffSavePhoto",
        {"image": ["colours", 0], "photo": ["load photo", 2], "mask": ["load photo", 1], "filename": "%name%",
         "format": "as source", "bit_depth": "as source", "color_profile": "as source", "quality": 95, "metadata": True,
         "workflow": True},
    ),
    "load folder": (
        "FaithDiffLoadFolder",
        {"folder": ".", "pattern": PHOTO, "sub_folders": False, "save_to": "folder", "retry_failed": False, "again": 0},
    ),
    "save folder": (
        "FaithDiffSaveFolder",
        {"image": ["load folder", 0], "folder": ["load folder", 2], "mask": ["load folder", 1], "format": "as source",
         "bit_depth": "as source", "color_profile": "as source", "quality": 95, "metadata": True, "workflow": True},
    ),
    "preset": ("FaithDiffPreset", {"preset": "photo"}),
    "compare": ("FaithDiffCompare", {"before": ["photo", 0], "after": ["colours", 0], "direction": "right"}),
    "report": (
        "FaithDiffReport",
        {"image": ["colours", 0], "reference": ["photo", 0], "map": "consistency", **TILES, "scale": 0.0,
         "truth": ["upscale", 0]},
    ),
    "attribution": (
        "FaithDiffAttribution",
        {"model": ["align", 0], "clip": ["clip", 0], "vae": ["vae", 0], "prompt": ["prompt", 2], "words": "car", "compare": True,
         **SAMPLING},
    ),
}  # fmt: skip
LINKS_BY_TYPE = {  # a sound source for every type that our inputs take
    "MODEL": ["align", 0], "FAITHDIFF_MODEL": ["load", 1], "FAITHDIFF_FEATURES": ["encode", 0], "IMAGE": ["upscale", 0],
    "LATENT": ["align", 1], "VAE": ["vae", 0], "CLIP": ["clip", 0], "CONDITIONING": ["prompt", 0],
    "FAITHDIFF_PHOTO": ["load photo", 2], "FAITHDIFF_FOLDER": ["load folder", 2],
}  # fmt: skip


def graph() -> Prompt:
    """All nodes, nothing that tells what comes out."""
    return {key: {"class_type": kind, "inputs": copy.deepcopy(inputs)} for key, (kind, inputs) in ALL.items()}


def links(node: dict[str, Any]) -> list[str]:
    return [value[0] for value in node["inputs"].values() if isinstance(value, list) and value and isinstance(value[0], str)]


def needed(prompt: Prompt, wanted: list[str]) -> Prompt:
    """These nodes and those that they need, in the prompt's order."""
    found, left = set(), list(wanted)
    while left:
        key = left.pop()
        if key not in found and key in prompt:
            found.add(key)
            left += links(prompt[key])
    return {key: node for key, node in prompt.items() if key in found}


def with_sinks(prompt: Prompt, key: str, outputs: int) -> Prompt:
    """The prompt with a TrySink at every output of a node."""
    sinks = {f"sink {key} {i}": {"class_type": "TrySink", "inputs": {"value": [key, i]}} for i in range(outputs)}
    return {**prompt, **sinks}


def prompt_for(key: str, info: dict[str, Any]) -> Prompt:
    """One node of `ALL`, what it needs, and sinks; `info` is /object_info."""
    return with_sinks(needed(graph(), [key]), key, len(info[ALL[key][0]]["output"]))


def short_prompt() -> Prompt:
    """From the photo to the picture and its report."""
    return with_sinks(with_sinks(needed(graph(), ["report"]), "colours", 1), "report", 2)


def good_prompt() -> Prompt:
    """The whole way from a photo to the picture and its report, all nodes but Plan's measured text."""
    prompt = graph()
    del prompt["plan"]
    for key in ("colours", "report", "attribution", "tile prompts", "no prompt"):
        prompt = with_sinks(prompt, key, {"report": 2, "attribution": 4}.get(key, 1))
    return prompt
