"""Bad and border inputs of every node, made from what the server says of them in /object_info."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hostrun.paths import PACK_NAME

from .prompts_graphs import ALL, LINKS_BY_TYPE, Prompt, prompt_for
from .prompts_server import Ending
from .prompts_values import IMAGES, LATENTS, MASKS, PROMPTS

HUGE = 2**80
OF_ANY_TYPE = (None, True, -1, 0.5, "", "abc", "7", "nan", [], ["a"], [1, 2, 3], {}, {"__value__": [1, 2]}, {"a": 1}, math.nan,
               math.inf, -math.inf, HUGE, -HUGE)  # fmt: skip
ODD_LINKS = (
    ["nowhere", 0], [1, 0], [None, 0], ["photo", -1], ["photo", 99], ["photo", HUGE], ["photo", "0"], ["photo", 0.5],
    ["photo", None], ["photo", math.nan], ["photo", True], [["photo"], 0], [{}, 0], ["", ""],
)  # fmt: skip
TEXTS = ("a" * 4000, "\x00", "\ud800", "(((", "((a:1e999))", "embedding:nothing", ",", "car, car", "ü 漢 🙂", "%s {} {0}")
# Values of one type that other packs' nodes may give.
ODD_VALUES = {"IMAGE": ("TryImage", IMAGES), "LATENT": ("TryLatent", LATENTS), "MASK": ("TryMask", MASKS),
              "CONDITIONING": ("TryConditioning", PROMPTS), "CLIP": ("TryClip", ("SD1.5", "none"))}  # fmt: skip
# One line that says what was expected and what came.
CLEAR = re.compile(r"(\S+: )?expected [^\n]*, (got|found) [^\n]*\Z")
OUT_OF_MEMORY = "torch.OutOfMemoryError"  # the host explains it to the user
NOTHING = {"MODEL": 0, "VAE": 1}  # outputs of TryNothing


@dataclass(frozen=True, kw_only=True)
class Case:
    """`node` is the key of the node under test in `prompt`; `name` says what is odd."""

    name: str
    node: str
    prompt: Prompt


def cases_of(key: str, info: dict[str, Any]) -> Iterator[Case]:
    """All cases of one node of `ALL`; `info` is /object_info."""
    kind = ALL[key][0]
    inputs = {name: (spec, True) for name, spec in info[kind]["input"].get("required", {}).items()}
    inputs |= {name: (spec, False) for name, spec in info[kind]["input"].get("optional", {}).items()}
    for name, (spec, is_required) in inputs.items():
        if spec[0] == "COMFY_DYNAMICCOMBO_V3":
            yield from _dynamic(key, name, spec[1], info)
            continue
        for label, value in _values(key, name, spec):
            yield _case(key, name, label, info, value)
        if is_required:
            prompt = prompt_for(key, info)
            del prompt[key]["inputs"][name]
            yield Case(name=f"{kind}.{name} left out", node=key, prompt=prompt)
    yield from _whole_node(key, info)


def _case(key: str, name: str, label: str, info: dict[str, Any], value: Any) -> Case:
    """One input is another; a `value` that is a pair (class, inputs) is a node to take it from."""
    prompt = prompt_for(key, info)
    if isinstance(value, tuple):
        prompt["odd"] = {"class_type": value[0], "inputs": value[1]}
        value = ["odd", value[2]]
    prompt[key]["inputs"][name] = value
    return Case(name=f"{ALL[key][0]}.{name} {label}", node=key, prompt=prompt)


def _values(key: str, name: str, spec: list) -> Iterator[tuple[str, Any]]:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    for value in OF_ANY_TYPE:
        yield f"is {value!r:.24}", value
    for link in (*ODD_LINKS, [key, 0], ["sink " + key + " 0", 0]):
        yield f"linked to {str(link)[:24]}", link
    for other, link in LINKS_BY_TYPE.items():  # a cycle where that node needs this one
        yield f"linked to {other} of {link[0]}", link
    if kind in ("INT", "FLOAT"):
        least, most = options["min"], options["max"]
        step = 1 if kind == "INT" else 1e-6 * max(1.0, abs(most))
        for value in (least - step, least, least + step, (least + most) / 2, most - step, most, most + step):
            yield f"is {value}", int(value) if kind == "INT" else value
    if kind == "COMBO":
        for value in options["options"]:
            yield f"is {value!r}", value
    if kind == "STRING":
        for value in TEXTS:
            yield f"is {value[:12].encode('unicode_escape').decode()}", value
    if kind in ODD_VALUES:
        node, kinds = ODD_VALUES[kind]
        for odd in kinds:
            yield f"given {odd}", (node, {"kind": odd} | _size(node), 0)
    if kind in NOTHING:
        yield "given none", ("TryNothing", {}, NOTHING[kind])


def _size(node: str) -> dict[str, int]:
    return {"TryImage": {"width": 80, "height": 48}, "TryLatent": {"width": 10, "height": 6}}.get(node, {})


def _dynamic(key: str, name: str, options: dict[str, Any], info: dict[str, Any]) -> Iterator[Case]:
    """A choice that brings an input of its own: each choice with each value."""
    for value in OF_ANY_TYPE:
        yield _case(key, name, f"is {value!r:.24}", info, value)
    for option in options["options"]:
        for part, spec in option["inputs"]["required"].items():
            for label, value in (*_values(key, part, spec), ("left out", None)):
                case = _case(key, f"{name}.{part}", f"{option['key']} {label}", info, value)
                inputs = case.prompt[key]["inputs"]
                inputs[name] = option["key"]
                if part != "factor":
                    del inputs["target.factor"]
                if label == "left out":
                    del inputs[f"{name}.{part}"]
                yield case


def _whole_node(key: str, info: dict[str, Any]) -> Iterator[Case]:
    """What can be odd about a node as such."""
    kind = ALL[key][0]
    bodies = {
        "unknown class": {"class_type": kind + "X"}, "no class": {"class_type": None}, "class is a list": {"class_type": [kind]},
        "inputs none": {"inputs": None}, "inputs a list": {"inputs": []}, "inputs empty": {"inputs": {}},
    }  # fmt: skip
    for label, change in bodies.items():
        prompt = prompt_for(key, info)
        prompt[key] = {**prompt[key], **change}
        yield Case(name=f"{kind} {label}", node=key, prompt=prompt)
    for label, change in (("an input too many", {"no_such_input": 1}), ("an input of no name", {"": 1})):
        prompt = prompt_for(key, info)
        prompt[key]["inputs"] |= change
        yield Case(name=f"{kind} {label}", node=key, prompt=prompt)
    prompt = prompt_for(key, info)
    prompt[key] = [1, 2]  # type: ignore[assignment]
    yield Case(name=f"{kind} a list for a node", node=key, prompt=prompt)


def unclear(ending: Ending, prompt: Prompt) -> str:
    """What is wrong with the way a prompt ended, empty where nothing is: a picture, a refusal, or one clear message.

    A host's node may raise what it likes, as long as the error does not come out of our code or of a library that our code
    called. The host may answer HTTP 500 to a prompt that is none.
    """
    if ending.how == "broken":
        return "" if any(map(_is_malformed, prompt.values())) else ending.reason
    if ending.how != "error" or CLEAR.match(ending.reason) or ending.kind == OUT_OF_MEMORY:
        return ""
    ours = prompt.get(ending.node, {}).get("class_type", "").startswith("FaithDiff")
    frames = [file for file in re.findall(r'File "([^"]+)"', ending.trace) if "site-packages" not in file]
    if ours or (frames and PACK_NAME in frames[-1]):
        return f"{ending.kind}: {ending.reason[:300]}"
    return ""


def _is_malformed(node: Any) -> bool:
    """Whether the host looks into it as into something else: it checks the values of inputs, not what holds them."""
    return not isinstance(node, dict) or isinstance(node["class_type"], list) or not isinstance(node["inputs"], dict)
