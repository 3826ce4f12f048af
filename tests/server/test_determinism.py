"""The same seed gives the same bytes whatever ran before; but for rounding, however tiles are batched and in the oldest host."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hostrun.client import Client
from hostrun.environment import ensure_oldest
from hostrun.gpu import has_gpu
from hostrun.server import HostServer
from PIL import Image
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.session_server import started_server
from support.workflows import api_prompt, node_of, resized

MAX_LEVELS = 1
"""Of 255, between two pictures that are the same but for rounding: a value that lies next to x.5 may go either way."""


@pytest.fixture(scope="module")
def cpu_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    """What this file says is so on processors only. The session's server, where that has no GPU."""
    if not has_gpu(Path(sys.executable)):
        yield request.getfixturevalue("server")
    else:
        base = tmp_path_factory.mktemp("processor")
        yield from started_server(Path(sys.executable), Path(os.environ["COMFYUI_PATH"]), base, cpu=True)


@pytest.fixture(scope="module")
def oldest_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    yield from started_server(Path(sys.executable), ensure_oldest().host, tmp_path_factory.mktemp("oldest"), cpu=True)


def tiled_prompt(demo: dict[str, Any], **sampler: Any) -> dict[str, Any]:
    """The demo's prompt at 168 x 104 px in tiles of 64 px, its latent saved as well."""
    prompt = resized(demo, 168, 104)
    key = node_of(prompt, "FaithDiffSampler")
    prompt[key]["inputs"].update(steps=3, tile_size=64, **sampler)
    prompt["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": [key, 0], "filename_prefix": "l"}}
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


def assert_same(ours: tuple[bytes, np.ndarray], expected: tuple[bytes, np.ndarray]) -> None:
    """But for rounding: other shapes of a call, or another host's functions, add up in another order. The latents reach 12."""
    assert_close(ours[1], expected[1], NETWORK)
    ours_u8, expected_u8 = (np.frombuffer(pixels, np.uint8).astype(int) for pixels, _ in (ours, expected))
    assert np.abs(ours_u8 - expected_u8).max() <= MAX_LEVELS


@pytest.fixture(scope="module")
def first(cpu_server: HostServer) -> tuple[bytes, np.ndarray]:
    return made(cpu_server, tiled_prompt(api_prompt("faithdiff_demo")))


def test_the_same_after_another_run(cpu_server, demo_prompt, first):
    made(cpu_server, tiled_prompt(demo_prompt, seed=7, tile_batch=2))
    pixels, latent = made(cpu_server, tiled_prompt(demo_prompt))
    assert pixels == first[0] and np.array_equal(latent, first[1])


def test_another_seed_is_another_picture(cpu_server, demo_prompt, first):
    pixels, latent = made(cpu_server, tiled_prompt(demo_prompt, seed=7))
    assert pixels != first[0] and relative_difference(latent, first[1]) > CHANGED


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_the_same_however_tiles_are_batched(tile_batch, cpu_server, demo_prompt, first):
    assert_same(made(cpu_server, tiled_prompt(demo_prompt, tile_batch=tile_batch)), first)


@pytest.mark.long
def test_the_oldest_host_makes_the_same(oldest_server, demo_prompt, first):
    assert_same(made(oldest_server, tiled_prompt(demo_prompt)), first)
