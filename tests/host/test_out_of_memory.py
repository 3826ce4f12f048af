"""A device that is out of memory once at every stage of one restoration: it ends all the same, with the same picture."""

from __future__ import annotations

import logging

import comfy.supported_models
import pytest
import torch
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from support import tiny
from support.compare import NETWORK, relative_difference
from support.sampling import align, encode, sample
from support.tiles import tiled

IMAGE = tiny.image(104, 320)  # larger than the smallest tile of the LQ encoder, 256 px


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return load_nano_vae(*read_weights(str(tiny.write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors"))))


@pytest.fixture
def out_once(monkeypatch):
    """Makes an object's method run out of memory at its first call."""

    def make(owner, name):
        method, calls = getattr(owner, name), []

        def limited(*args, **kwargs):
            calls.append(name)
            if len(calls) == 1:
                raise torch.cuda.OutOfMemoryError("made up")
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, limited)
        return calls

    return make


def restored(loaded, vae):
    """The picture of a graph with tiles: encode, align, sample, decode, colours."""
    with torch.inference_mode():  # as nodes run in the host
        features, latent = encode(loaded, IMAGE, vae)
        model, _ = align(loaded, IMAGE)
        return FaithDiffColorFix.execute(vae.decode(sample(tiled(model, batch=4), latent)), IMAGE, "adain").args[0]


@pytest.mark.parametrize("stage", ["LQ encoder", "VAE encoder", "UNet", "VAE decoder"])
def test_the_run_ends_with_the_same_picture(loaded, vae, out_once, caplog, stage):
    expected = restored(loaded, vae)
    owner, name = {
        "LQ encoder": (loaded.faithdiff.encoder.model, "forward"),
        "VAE encoder": (vae.first_stage_model, "encode"),
        "UNet": (loaded.model.model.diffusion_model, "forward"),
        "VAE decoder": (vae.first_stage_model, "decode"),
    }[stage]
    calls = out_once(owner, name)
    caplog.set_level(logging.WARNING)
    result = restored(loaded, vae)
    assert calls, "the stage was gone through"
    # The host's own tiles of the VAE each have their own statistics, which changes a picture by some levels of 255 at most.
    worst = 6 / 255 if stage.startswith("VAE") else NETWORK
    assert result.shape == IMAGE.shape and relative_difference(result, expected) < worst
    said = [r.getMessage() for r in caplog.records if "memory" in r.getMessage().lower() and r.levelno >= logging.WARNING]
    assert len(said) == 1, said


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried")]
)
def test_main_memory_that_ends_is_not_called_a_damaged_file(error, tmp_path, monkeypatch):
    path = tiny.write_full(tmp_path / "model.safetensors", tiny.made_up_parts())

    def spent(*_, **__):
        raise error

    monkeypatch.setattr(comfy.supported_models.SDXL, "get_model", spent)
    with pytest.raises(type(error)) as seen:
        load(str(path))
    assert seen.value is error
