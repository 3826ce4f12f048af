"""The same seed gives the same bytes: whatever ran before, however tiles are batched, and in the oldest host as in the newest."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from harness.fixtures import started_server
from hostrun.client import Client
from hostrun.environment import ensure_oldest
from hostrun.server import HostServer
from PIL import Image

MOST_LATENT_DIFFERENCE = 1e-5
"""Between two hosts, of latents whose standard deviation is near 1: what the issue of a differing kernel would exceed."""


@pytest.fixture(scope="module")
def oldest_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    yield from started_server(Path(sys.executable), ensure_oldest().host, tmp_path_factory.mktemp("oldest"))


def tiled_prompt(demo: dict[str, Any], **sampler: Any) -> dict[str, Any]:
    """The demo's prompt at 168 x 104 px in tiles of 64 px, its latent saved as well."""
    prompt = json.loads(json.dumps(demo))
    by_class = {node["class_type"]: key for key, node in prompt.items()}
    scale = prompt[by_class["ImageScaleBy"]]
    scale["class_type"] = "ImageScale"
    scale["inputs"] = {"image": scale["inputs"]["image"], "upscale_method": "bilinear", "crop": "disabled"}
    scale["inputs"] |= {"width": 168, "height": 104}
    prompt[by_class["FaithDiffSampler"]]["inputs"].update(steps=3, tile_size=64, **sampler)
    prompt["latent"] = {
        "class_type": "SaveLatent",
        "inputs": {"samples": [by_class["FaithDiffSampler"], 0], "filename_prefix": "l"},
    }
    return prompt


def made(server: HostServer, prompt: dict[str, Any]) -> tuple[bytes, np.ndarray]:
    """The pixels of the picture and the latent of a run in which nothing comes from the host's cache."""
    with Client(server.url, check_server=server.check_running) as client:
        client.post("/free", {"unload_models": True, "free_memory": True})
        history = client.run(prompt)
        pixels = Image.open(io.BytesIO(client.images(history)[0])).tobytes()
    (saved,) = history["outputs"]["latent"]["latents"]
    file = server.options.base / "output" / saved["subfolder"] / saved["filename"]
    return pixels, safetensors.numpy.load(file.read_bytes())["latent_tensor"]


@pytest.fixture(scope="module")
def first(server: HostServer) -> tuple[bytes, np.ndarray]:
    demo = json.loads((Path(__file__).parents[2] / "workflows" / "api" / "faithdiff_demo.json").read_text(encoding="utf-8"))
    return made(server, tiled_prompt(demo))


def test_the_same_after_another_run(server, demo_prompt, first):
    made(server, tiled_prompt(demo_prompt, seed=7, tile_batch=2))
    pixels, latent = made(server, tiled_prompt(demo_prompt))
    assert pixels == first[0] and np.array_equal(latent, first[1])


def test_another_seed_is_another_picture(server, demo_prompt, first):
    assert made(server, tiled_prompt(demo_prompt, seed=7))[0] != first[0]


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_the_same_however_tiles_are_batched(tile_batch, server, demo_prompt, first):
    pixels, latent = made(server, tiled_prompt(demo_prompt, tile_batch=tile_batch))
    assert np.abs(latent - first[1]).max() <= MOST_LATENT_DIFFERENCE
    assert np.abs(np.frombuffer(pixels, np.uint8).astype(int) - np.frombuffer(first[0], np.uint8)).max() <= 1


def test_the_oldest_host_makes_the_same(oldest_server, demo_prompt, first):
    pixels, latent = made(oldest_server, tiled_prompt(demo_prompt))
    assert np.abs(latent - first[1]).max() <= MOST_LATENT_DIFFERENCE
    assert np.abs(np.frombuffer(pixels, np.uint8).astype(int) - np.frombuffer(first[0], np.uint8)).max() <= 1
