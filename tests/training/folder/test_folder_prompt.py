"""Prompts as forms: which node is which, what --set may do, what is told to somebody with the wrong file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from training.folder.prompt import Prompt, make_form, read_prompt

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = ROOT / "workflows"
PROMPT: Prompt = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
    "2": {
        "class_type": "FaithDiffUpscale",
        "inputs": {"image": ["1", 0], "target": "scale factor", "target.factor": 2, "target.exact": False},
        "_meta": {"title": "Size. Ratio"},
    },
    "6:3": {"class_type": "KSampler", "inputs": {"image": ["2", 0], "seed": 42, "extra": None}, "_meta": {"title": "Sampler"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["6:3", 0]}, "_meta": {"title": "Save"}},
}


def changed(node_id: str, **node: Any) -> Prompt:
    """PROMPT with a node put in or replaced."""
    return copy.deepcopy(PROMPT) | {node_id: {"inputs": {}, "_meta": {}} | node}


def test_the_only_nodes_are_found_and_the_picture_goes_in() -> None:
    form = make_form(PROMPT)
    assert (form.input_node, form.output_node) == ("1", "4")
    assert form.filled("x.png [temp]")["1"]["inputs"]["image"] == "x.png [temp]"
    assert PROMPT["1"]["inputs"]["image"] == "a.png"
    preview = changed("4", class_type="PreviewImage", inputs={"images": ["2", 0]})
    assert make_form(preview).output_node == "4"
    both = changed("5", class_type="PreviewImage", inputs={"images": ["2", 0]})
    assert make_form(both).output_node == "4" and make_form(both, output_node="5").output_node == "5"


def test_bundled_prompts_are_forms() -> None:
    checked = 0
    for path in sorted((WORKFLOWS / "api").glob("*.json")):
        prompt = read_prompt(path)
        loaders = [key for key, node in prompt.items() if node["class_type"] in ("FaithDiffLoadPhoto", "LoadImage")]
        if loaders:  # one loads a film
            assert make_form(prompt, input_node=loaders[0]).output_node, path
            checked += 1
    assert checked >= 8


@pytest.mark.parametrize(
    ("setting", "node", "name", "value"),
    [
        ("6:3.seed=7", "6:3", "seed", 7),
        ("Sampler.seed=7.5", "6:3", "seed", 7.5),
        ("2.target.factor=3.5", "2", "target.factor", 3.5),
        ("Size. Ratio.target.factor=3", "2", "target.factor", 3),
        ("2.target.exact=true", "2", "target.exact", True),
        ("2.target=longest side", "2", "target", "longest side"),
        ("2.target=1984", "2", "target", "1984"),
        ('2.target="a=b.c"', "2", "target", "a=b.c"),
        ("2.target=", "2", "target", ""),
        ("6:3.extra=[1, 2]", "6:3", "extra", [1, 2]),
    ],
)
def test_set_replaces_an_input(setting: str, node: str, name: str, value: object) -> None:
    form = make_form(PROMPT, settings=[setting])
    found = form.prompt[node]["inputs"][name]
    assert found == value and type(found) is type(value)
    assert form.sha256 != make_form(PROMPT).sha256


def test_seed_goes_into_every_seed_and_set_into_one() -> None:
    two = changed("7", class_type="RandomNoise", inputs={"noise_seed": 1})
    form = make_form(two, seed=5, settings=["7.noise_seed=6"])
    assert (form.prompt["6:3"]["inputs"]["seed"], form.prompt["7"]["inputs"]["noise_seed"]) == (5, 6)


def test_hash_covers_what_decides_the_result_and_nothing_else() -> None:
    base = make_form(PROMPT).sha256
    other = copy.deepcopy(PROMPT)
    other["1"]["inputs"]["image"] = "b.png"
    other["4"]["_meta"]["title"] = "Elsewhere"
    assert make_form(dict(reversed(other.items()))).sha256 == base
    two = changed("5", class_type="SaveImage", inputs={"images": ["2", 0]})
    assert len({make_form(two, output_node=node).sha256 for node in "45"} | {base}) == 3


LINKED_SEED = changed("6:3", class_type="KSampler", inputs={"image": ["2", 0], "seed": ["8", 0]})


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (
            changed("5", class_type="LoadImage"),
            {},
            "expected one FaithDiffLoadPhoto or LoadImage node to give the pictures to, got 1 (Photo), 5 (no title)",
        ),
        (changed("1", class_type="LoadFilm"), {}, "FaithDiffLoadPhoto or LoadImage node to give the pictures to, got none"),
        (
            changed("5", class_type="SaveImage"),
            {},
            "expected one FaithDiffSavePhoto or SaveImage or PreviewImage node to fetch the results from, got 4 (",
        ),
        (
            changed("4", class_type="SaveFilm"),
            {},
            "expected one FaithDiffSavePhoto or SaveImage or PreviewImage node to fetch the results from, got none",
        ),
        (PROMPT, {"input_node": "2"}, "expected a node that loads a picture by name, got node 2 (FaithDiffUpscale)"),
        (
            PROMPT,
            {"input_node": "9"},
            "expected a node's id or title, got '9', which no node has; choose from 1, 2, 6:3, 4, Photo",
        ),
        (PROMPT, {"output_node": "Sav"}, "got 'Sav', which no node has; did you mean 'Save'?"),
        (changed("4", class_type="SaveImage", inputs={"images": ["7", 0]}), {}, "to depend on node 1 (LoadImage), got no link"),
        (changed("5", class_type="X", _meta={"title": "Save"}), {"settings": ["Save.a=1"]}, "the title of 4, 5; use an id"),
        (PROMPT, {"settings": ["6:3.sede=1"]}, "expected an input of node 6:3 (KSampler), got 'sede'; did you mean 'seed'?"),
        (PROMPT, {"settings": ["Samplr.seed=1"]}, "got 'Samplr', which no node has; did you mean 'Sampler'?"),
        (PROMPT, {"settings": ["seed"]}, "expected NODE.INPUT=VALUE, got 'seed'"),
        (PROMPT, {"settings": ["6:3.seed=many"]}, "expected a value like 42 for 6:3.seed, got 'many'"),
        (PROMPT, {"settings": ["6:3.seed=true"]}, "expected a value like 42 for 6:3.seed, got 'true'"),
        (PROMPT, {"settings": ["2.target.exact=1"]}, "expected a value like false for 2.target.exact, got '1'"),
        (PROMPT, {"settings": ["4.images=x"]}, "expected an input with a value, got '4.images', which is linked to node 6:3"),
        (LINKED_SEED, {"seed": 3}, "expected an input seed or noise_seed for --seed, got a workflow with none"),
    ],
)
def test_wrong_names_and_values_are_one_line(prompt: Prompt, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        make_form(prompt, **options)
    assert message in str(raised.value) and str(raised.value).startswith("expected") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"nodes": [], "links": []}', "got a graph as the editor saves it; export it in ComfyUI with"),
        ("{", "got broken JSON"),
        ("[1]", "got something else"),
        ("{}", "got something else"),
        ('{"1": {"class_type": "A"}}', "got something else"),
        ('{"prompt": {"1": {"class_type": "A", "inputs": {}}}}', "got something else"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prompt(path)


def test_a_graph_of_ours_names_the_prompt_beside_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"or use .*workflows/api/faithdiff_upscale\.json"):
        read_prompt(WORKFLOWS / "faithdiff_upscale.json")
    with pytest.raises(ValueError, match="expected a workflow in .*, got none"):
        read_prompt(tmp_path / "none.json")
    marked = tmp_path / "marked.json"
    marked.write_text(json.dumps(PROMPT), encoding="utf-8-sig")  # as some Windows editors save it
    assert read_prompt(marked) == PROMPT
