"""What a user sees of the workflows in the template browser, on the canvas and after Run."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hostrun.client import Client
from PIL import Image
from support import workflows
from support.patience import PATIENCE_S
from support.tiers import all_long_but

pytestmark = pytest.mark.host
LARGEST_THUMBNAIL_BYTES = 60_000

ROUNDING_LEVELS = 2  # of 255
MIN_ZOOM = 0.6
"""At which a template opens in a window of 1600 x 1000 px. Below 0.57 the front end draws no text (1.47: letters under 8 px)."""
OF_EACH_KIND = ("faithdiff_nano", "faithdiff_masked")
"""Templates without and with weights to download."""


@pytest.fixture(scope="module")
def cards(frontend):
    found = {card["name"]: card for card in frontend.ask("templates")}
    frontend.photograph("templates")
    return found


def test_the_template_browser_lists_every_workflow(cards):
    assert sorted(cards) == workflows.NAMES
    assert workflows.NAMES


@pytest.mark.parametrize("name", workflows.NAMES)
def test_a_template_has_its_thumbnail(cards, name):
    picture = workflows.FOLDER / f"{name}.jpg"
    assert picture.is_file(), f"make it with tools/frontend/thumbnail.py: {picture.name}"
    assert picture.stat().st_size < LARGEST_THUMBNAIL_BYTES
    with Image.open(picture) as image:  # the front end's own stand-in has another size
        assert (cards[name]["width_px"], cards[name]["height_px"]) == image.size


@pytest.mark.parametrize("name", all_long_but(workflows.NAMES, *OF_EACH_KIND))
def test_a_template_opens_clean_and_readable(frontend, name):
    opened = frontend.ask("openTemplate", name=name)
    frontend.photograph(name)
    assert opened["unknown"] == []
    assert opened["complaints"] == []
    assert opened["marked"] == []
    assert opened["problems"] == []
    assert opened["zoom"] >= MIN_ZOOM
    assert opened["groups"] >= 1
    assert opened["notes"] >= 1
    wanted = {number: (node["class_type"], node["inputs"]) for number, node in workflows.api_prompt(name).items()}
    assert {number: (node["class_type"], node["inputs"]) for number, node in opened["prompt"].items()} == wanted


@pytest.fixture
def nodes_2(frontend):
    frontend.ask("setNodes2", on=True)
    yield frontend
    frontend.ask("setNodes2", on=False)


@pytest.mark.parametrize("name", all_long_but(workflows.NAMES, *OF_EACH_KIND))
def test_a_template_opens_readable_in_nodes_2(nodes_2, name):
    """There nodes are higher than in the older mode."""
    opened = nodes_2.ask("openTemplate", name=name)
    nodes_2.photograph(f"{name}_nodes_2")
    assert opened["problems"] == []
    assert opened["complaints"] == []
    assert opened["zoom"] >= MIN_ZOOM


@pytest.mark.parametrize("name", all_long_but(list(filter(workflows.runs_as_it_comes, workflows.NAMES)), "faithdiff_nano"))
def test_run_by_a_click_gives_the_picture_of_the_twin(frontend, name):
    frontend.ask("openTemplate", name=name)
    ran = frontend.ask("run", timeout_s=PATIENCE_S)
    frontend.photograph(f"{name}_run")
    assert ran["outcome"] == "success"
    assert ran["complaints"] == []
    saved = [picture for picture in ran["pictures"] if picture["type"] == "output"]
    assert saved, "no picture was saved"
    with Client(frontend.server.url) as client:
        by_click = _pixels(client.images({"outputs": {"0": {"images": saved}}})[-1])
        client.post("/free", {"free_memory": True})  # without its cache, so that the server computes it anew
        outputs = client.run(workflows.api_prompt(name), PATIENCE_S)["outputs"]
        of_the_twin = [image for output in outputs.values() for image in output.get("images", []) if image["type"] == "output"]
        by_twin = _pixels(client.images({"outputs": {"0": {"images": of_the_twin}}})[-1])
    # Not always the same bits: by the memory that is free the host takes an image whole or in parts, which rounds otherwise.
    assert by_twin.shape == by_click.shape
    assert np.abs(by_twin - by_click).max() <= ROUNDING_LEVELS
    assert by_click.std() > 10, "a picture of one colour"


def _pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)
