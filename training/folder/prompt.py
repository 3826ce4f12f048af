"""A prompt in ComfyUI's API format as a form: which node takes the picture, which gives the result, what is set before."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.common.strict_json import parse_json

Prompt = dict[str, dict[str, Any]]
"""Node id -> {"class_type", "inputs", "_meta"}. An input is a value, or [node id, output number]."""

LOAD_PHOTO, SAVE_PHOTO = "FaithDiffLoadPhoto", "FaithDiffSavePhoto"
"""They take a picture's file as it is, and give one that has all of its source."""
PICTURE_CLASSES = (LOAD_PHOTO, "LoadImage")
RESULT_CLASSES = (SAVE_PHOTO, "SaveImage", "PreviewImage")
SEED_INPUTS = ("seed", "noise_seed")
MAX_LETTERS, MAX_NAMES = 60, 16
"""Of a name in a message, and names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptForm:
    """A checked prompt; only the picture is missing."""

    prompt: Prompt
    input_node: str
    output_node: str

    @property
    def loads_photos(self) -> bool:
        """Whether the pictures go to FaithDiff Load Photo."""
        return self.prompt[self.input_node]["class_type"] == LOAD_PHOTO

    @property
    def saves_photos(self) -> bool:
        """Whether the results come from FaithDiff Save Photo."""
        return self.prompt[self.output_node]["class_type"] == SAVE_PHOTO

    @property
    def sha256(self) -> str:
        """Of all that decides the result but the picture: classes, inputs, the two nodes. Titles and order do not count."""
        nodes = {key: [node["class_type"], node["inputs"]] for key, node in self.filled("").items()}
        text = json.dumps([nodes, self.input_node, self.output_node], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def filled(self, picture: str) -> Prompt:
        """The prompt with `picture`, a name as LoadImage takes it."""
        prompt = copy.deepcopy(self.prompt)
        prompt[self.input_node]["inputs"]["image"] = picture
        return prompt

    def shown(self, node_id: str) -> str:
        """A node as messages name it."""
        return shown(self.prompt, node_id)


def shown(prompt: Prompt, node_id: str) -> str:
    """`node 8 (FaithDiffSampler)`."""
    return f"node {short(node_id)} ({short(prompt.get(node_id, {}).get('class_type', 'unknown'))})"


def short(text: str) -> str:
    """Names and values of a workflow as messages show them: on one line, cut to MAX_LETTERS."""
    flat = text if text.isprintable() else repr(text)
    return flat if len(flat) <= MAX_LETTERS else flat[: MAX_LETTERS - 3] + "..."


def read_prompt(path: Path) -> Prompt:
    """Read an API-format prompt.

    Raises:
        ValueError: it is none, or a graph as ComfyUI's editor saves it.
    """
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"expected a workflow in {path}, got none ({error.strerror}), check the path") from error
    except ValueError as error:
        raise ValueError(f"expected a workflow in {path}, got broken JSON ({error}), export it again") from error
    if isinstance(value, dict) and isinstance(value.get("nodes"), list):
        ready = path.parent / "api" / path.name  # where this pack keeps its own
        other = f", or use {ready}" if ready.is_file() else ""
        raise ValueError(
            f"expected an API-format prompt in {path}, got a graph as the editor saves it; "
            f'export it in ComfyUI with "Export (API)"{other}'
        )
    if not isinstance(value, dict) or not value or not all(map(_is_node, value.values())):
        raise ValueError(
            f"expected an API-format prompt in {path} (nodes by id, each with class_type and inputs), got something else; "
            'export it in ComfyUI with "Export (API)"'
        )
    return value


def make_form(
    prompt: Prompt, *, input_node: str | None = None, output_node: str | None = None, seed: int | None = None,
    settings: Sequence[str] = (),
) -> PromptForm:  # fmt: skip
    """Find the two nodes and put values in.

    `input_node`, `output_node`: id or title, or None for the only one of PICTURE_CLASSES and of RESULT_CLASSES, the first first.
    `seed`: goes into every input seed or noise_seed. `settings`: "NODE.INPUT=VALUE", applied after it.

    Raises:
        ValueError: names that are not there or not unique, values of another kind, a result that does not depend on the picture.
    """
    prompt = copy.deepcopy(prompt)
    if seed is not None:
        _set_seed(prompt, seed)
    for text in settings:
        _set_input(prompt, text)
    form = PromptForm(prompt=prompt, input_node=_input_node(prompt, input_node), output_node=_output_node(prompt, output_node))
    if form.input_node not in _upstream(prompt, form.output_node):
        raise ValueError(
            f"expected the result of {form.shown(form.output_node)} to depend on {form.shown(form.input_node)}, "
            "got no link between them; name others by --input-node, --output-node"
        )
    return form


def _is_node(value: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("class_type"), str) and isinstance(value.get("inputs"), dict)):
        return False
    meta = value.get("_meta", {})
    return isinstance(meta, dict) and isinstance(meta.get("title", ""), str)


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _upstream(prompt: Prompt, node_id: str) -> set[str]:
    """The node and all that it depends on."""
    found: set[str] = set()
    ahead = [node_id]
    while ahead:
        node = ahead.pop()
        if node in prompt and node not in found:
            found.add(node)
            ahead += [value[0] for value in prompt[node]["inputs"].values() if _is_link(value)]
    return found


def _ids_of(prompt: Prompt, name: str) -> list[str]:
    """Ids of the nodes that a name means: the id itself, else every node of that title."""
    if name in prompt:
        return [name]
    return [key for key, node in prompt.items() if node.get("_meta", {}).get("title") == name]


def _node_of(prompt: Prompt, name: str) -> str:
    found = _ids_of(prompt, name)
    if len(found) == 1:
        return found[0]
    if found:
        same = ", ".join(found[:MAX_NAMES])
        raise ValueError(f"expected a node's id or a title of one node, got {short(name)!r}, the title of {same}; use an id")
    titles = [node.get("_meta", {}).get("title", "") for node in prompt.values()]
    raise ValueError(f"expected a node's id or title, got {short(name)!r}, which no node has{_nearest(name, [*prompt, *titles])}")


def _nearest(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:MAX_LETTERS], [each for each in choices if short(each) == each], n=1, cutoff=0.5)
    names = [short(name) for name in choices if name]
    return f"; did you mean {near[0]!r}?" if near else f"; choose from {', '.join(names[:MAX_NAMES])}"


def _input_node(prompt: Prompt, name: str | None) -> str:
    if name is None:
        return _only(prompt, PICTURE_CLASSES, "to give the pictures to", "--input-node")
    node_id = _node_of(prompt, name)
    if not isinstance(prompt[node_id]["inputs"].get("image"), str):
        raise ValueError(
            f"expected a node that loads a picture by name, got {shown(prompt, node_id)}; "
            f"name a {PICTURE_CLASSES[-1]} by --input-node"
        )
    return node_id


def _output_node(prompt: Prompt, name: str | None) -> str:
    if name is not None:
        return _node_of(prompt, name)
    return _only(prompt, RESULT_CLASSES, "to fetch the results from", "--output-node")


def _only(prompt: Prompt, classes: Sequence[str], purpose: str, option: str) -> str:
    """The only node of the first of these classes that there is any of."""
    found: list[str] = []
    for wanted in classes:
        found = [key for key, node in prompt.items() if node["class_type"] == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise ValueError(f"expected one {' or '.join(classes)} node {purpose}, got {_listed(prompt, found)}; name one by {option} ID")


def _listed(prompt: Prompt, node_ids: Sequence[str]) -> str:
    titles = {key: prompt[key].get("_meta", {}).get("title", "no title") for key in node_ids[:MAX_NAMES]}
    return ", ".join(f"{short(key)} ({short(title)})" for key, title in titles.items()) or "none"


def _set_seed(prompt: Prompt, seed: int) -> None:
    seeds = [(node["inputs"], name) for node in prompt.values() for name in SEED_INPUTS if type(node["inputs"].get(name)) is int]
    if not seeds:
        raise ValueError(f"expected an input {' or '.join(SEED_INPUTS)} for --seed, got a workflow with none; leave --seed out")
    for inputs, name in seeds:
        inputs[name] = seed


def _set_input(prompt: Prompt, text: str) -> None:
    """Apply one NODE.INPUT=VALUE. Titles and inputs may have dots themselves, so every dot is tried."""
    target, equals, value = text.partition("=")
    dots = [index for index, letter in enumerate(target) if letter == "."]
    if not (equals and dots):
        raise ValueError(f"expected NODE.INPUT=VALUE, got {short(text)!r}; for example 8.seed=3")
    at = next((dot for dot in dots if _ids_of(prompt, target[:dot])), dots[0])
    node_id, name = _node_of(prompt, target[:at]), target[at + 1 :]
    inputs = prompt[node_id]["inputs"]
    if name not in inputs:
        raise ValueError(f"expected an input of {shown(prompt, node_id)}, got {short(name)!r}{_nearest(name, list(inputs))}")
    if _is_link(inputs[name]):
        raise ValueError(
            f"expected an input with a value, got {short(target)!r}, which is linked to "
            f"{shown(prompt, inputs[name][0])}; set it there"
        )
    inputs[name] = _typed(inputs[name], value, target)


def _typed(present: Any, text: str, target: str) -> Any:
    """The value that `text` means for an input that now holds `present`. Texts need no quotes; whole numbers and others are one
    kind, because a browser writes 1.0 as 1.
    """
    try:
        value = parse_json(text)
    except ValueError:
        value = text
    if isinstance(present, str):
        return value if isinstance(value, str) else text
    numbers = (int, float)
    if isinstance(present, bool) or isinstance(value, bool):
        fits = isinstance(present, bool) and isinstance(value, bool)
    elif isinstance(present, numbers):
        fits = isinstance(value, numbers)
    else:
        fits = present is None or type(value) is type(present)
    if not fits:
        like = short(json.dumps(present))
        raise ValueError(f"expected a value like {like} for {short(target)}, got {short(text)!r}; write it as JSON")
    return value
