"""Random prompts of our nodes and the host's that pass validation, built forwards and typed by what /object_info says."""

from __future__ import annotations

import random
from typing import Any

from .prompts_graphs import Prompt, graph, needed

OURS = (
    "FaithDiffLoadModel", "FaithDiffLoadNanoVAE", "FaithDiffUpscale", "FaithDiffEncodeLQ", "FaithDiffAlignLatent",
    "FaithDiffPrompt", "FaithDiffSplitTiles", "FaithDiffTilePrompts", "FaithDiffNoPrompt", "FaithDiffTileModel", "FaithDiffPlan",
    "FaithDiffSampler", "FaithDiffDecode", "FaithDiffColorFix", "FaithDiffReport", "FaithDiffAttribution",
)  # fmt: skip
HOSTS = (
    "KSampler", "KSamplerAdvanced", "SamplerCustom", "KSamplerSelect", "BasicScheduler", "VAEEncode", "VAEDecode",
    "VAEDecodeTiled", "EmptyLatentImage", "LatentFlip", "LatentRotate", "LatentBlend", "LatentAdd", "LatentBatch",
    "RepeatLatentBatch",
    "LatentFromBatch", "LatentCrop", "SetLatentNoiseMask", "ImageScale", "ImageScaleBy", "ImageInvert", "ImageBatch", "ImageCrop",
    "ImageBlend", "ImageQuantize", "ImageSharpen", "RepeatImageBatch", "ImageFromBatch", "ImagePadForOutpaint", "EmptyImage",
    "ImageToMask", "MaskToImage", "SolidMask", "InvertMask", "FeatherMask", "GrowMask", "CLIPTextEncode", "CLIPTextEncodeSDXL",
    "ConditioningCombine", "ConditioningConcat", "ConditioningAverage", "ConditioningSetArea", "ConditioningSetAreaPercentage",
    "ConditioningSetMask", "ConditioningSetTimestepRange", "ConditioningZeroOut", "ModelSamplingDiscrete", "RescaleCFG",
    "FreeU_V2", "PerpNeg", "SelfAttentionGuidance", "HyperTile", "TomePatchModel", "DifferentialDiffusion", "TryImage",
    "TryMask", "TryLatent",
)  # fmt: skip
MOST = {  # where an input's own bounds allow too much for a small test
    "steps": 3, "width": 96, "height": 96, "batch_size": 2, "amount": 2, "scale_by": 1.5, "target.factor": 2.0,
    "target.megapixels": 0.02, "target.longest_side": 128, "target.shortest_side": 128, "left": 24, "top": 24, "right": 24,
    "bottom": 24, "crop_w": 96, "crop_h": 96, "target_width": 256, "target_height": 256, "cfg": 9.0, "strength": 2.0,
    "expand": 8, "tile_size": 256, "end_at_step": 3, "start_at_step": 2, "feathering": 8,
}  # fmt: skip
SOLVERS = ("euler", "dpmpp_2m", "heun", "ddim", "lcm", "uni_pc")
SOUND_KINDS = ("photo", "alpha", "two", "black", "half", "SDXL", "noise mask", "two axes", "zeros")
SHOWN = ("IMAGE", "LATENT", "MASK", "CONDITIONING")


def random_prompt(info: dict[str, Any], seed: int) -> Prompt:
    """6 to 16 nodes on top of the sources, sound kinds of pictures only; the same seed and host give the same prompt."""
    chosen = random.Random(seed)
    prompt = needed(graph(), ["photo", "clip", "load", "vae", "upscale", "encode", "align", "prompt"])
    links: dict[str, list[list]] = {}
    for key, node in prompt.items():
        _offer(links, key, info[node["class_type"]])
    classes = [name for name in (*OURS * 3, *HOSTS) if name in info]
    wanted = chosen.randint(6, 16)
    for number in range(wanted * 4):
        name = chosen.choice(classes)
        inputs = _inputs(info[name], links, chosen)
        if inputs is not None:
            prompt[f"n{number}"] = {"class_type": name, "inputs": inputs}
            _offer(links, f"n{number}", info[name])
            wanted -= 1
        if not wanted:
            break
    last = [link for kind in SHOWN for link in links.get(kind, [])[-2:]]
    for number, link in enumerate(chosen.sample(last, 3)):
        prompt[f"sink {number}"] = {"class_type": "TrySink", "inputs": {"value": link}}
    outputs = [key for key, node in prompt.items() if info[node["class_type"]]["output_node"]]
    return needed(prompt, outputs)


def _offer(links: dict[str, list[list]], key: str, info: dict[str, Any]) -> None:
    for index, kind in enumerate(info["output"]):
        if isinstance(kind, str):
            links.setdefault(kind, []).append([key, index])


def _inputs(info: dict[str, Any], links: dict[str, list[list]], chosen: random.Random) -> dict[str, Any] | None:
    """Values for a node's inputs, None where a link that it needs is not to be had."""
    inputs: dict[str, Any] = {}
    parts = [(name, spec, True) for name, spec in info["input"].get("required", {}).items()]
    parts += [(name, spec, False) for name, spec in info["input"].get("optional", {}).items()]
    for name, spec, is_required in parts:
        if name == "prompt":  # of FaithDiff Word Attribution, which takes no other text than that of its CONDITIONING
            return {**inputs, **_attributed(info, links, chosen)}
        if spec[0] == "COMFY_DYNAMICCOMBO_V3":
            option = chosen.choice(spec[1]["options"])
            inputs[name] = option["key"]
            inputs |= {f"{name}.{p}": _value(f"{name}.{p}", s, chosen) for p, s in option["inputs"]["required"].items()}
        elif _is_value(spec):
            inputs[name] = _value(name, spec, chosen)
        elif name == "captions":
            inputs[name] = list(chosen.choice(links["STRING"]))
        elif links.get(spec[0]) and (is_required or chosen.random() < 0.5):
            inputs[name] = list(chosen.choice(links[spec[0]][-6:]))
        elif is_required:
            return None
    return inputs


def _attributed(info: dict[str, Any], links: dict[str, list[list]], chosen: random.Random) -> dict[str, Any]:
    """FaithDiff Word Attribution's inputs on the source's prompt."""
    inputs = {"positive": ["prompt", 0], "negative": ["prompt", 1], "prompt": ["prompt", 2], "words": "car"}
    for name, spec in (info["input"]["required"] | info["input"]["optional"]).items():
        if name not in inputs:
            inputs[name] = _value(name, spec, chosen) if _is_value(spec) else list(chosen.choice(links[spec[0]][-6:]))
    return inputs


def _is_value(spec: list) -> bool:
    forced = len(spec) > 1 and spec[1].get("forceInput")
    return (isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")) and not forced


def _value(name: str, spec: list, chosen: random.Random) -> Any:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(kind, list) or kind == "COMBO":
        allowed = kind if isinstance(kind, list) else options["options"]
        some = [v for v in allowed if v in (*SOLVERS, *SOUND_KINDS)] if name in ("sampler_name", "kind") else allowed
        return chosen.choice(some or allowed)
    if kind == "BOOLEAN":
        return chosen.random() < 0.5
    if kind == "STRING":
        return chosen.choice(["", "A red car.", "The image features a red car. It is parked.", "car"])
    least, most = options["min"], min(options["max"], MOST.get(name, options["max"]))
    if kind == "FLOAT":
        return chosen.choice([least, min(options.get("default", least), most), most, chosen.uniform(least, most)])
    step = options.get("step", 1)
    some = least + step * chosen.randint(0, max(0, min(most, least + 200 * step) - least) // step)
    return int(chosen.choice([least, min(options.get("default", least), most), some]))
