from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    return tiny.write_full(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny.made_up_parts())


@pytest.fixture(scope="session")
def loaded(tiny_file):
    from comfyui_faithdiff.nodes.load_model import load
    from support.sampling import Loaded

    return Loaded(*load(str(tiny_file)))


@pytest.fixture(scope="session")
def nano():
    """The bundled nano model."""
    from comfyui_faithdiff.nodes.load_model import load
    from support.sampling import Loaded

    return Loaded(*load(str(DEMO / "nano_faithdiff.safetensors")))


@pytest.fixture(scope="session")
def nano_vae():
    from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
    from comfyui_faithdiff.nodes.seam.weights_file import read_weights

    return load_nano_vae(*read_weights(str(DEMO / "nano_vae.safetensors")))


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    """The folder of the fidelity decoders of support/decoding.py, the only ones that the host finds."""
    import folder_paths
    from comfyui_faithdiff.nodes.seam import folders
    from support.decoding import BROKEN_FILE, NANO, NANO_FILE, OTHER_FILE

    path = tmp_path_factory.mktemp("decoders")
    (path / BROKEN_FILE).write_text("<!DOCTYPE html>")
    tiny.write_decoder(path / NANO_FILE, NANO)
    tiny.write_decoder(path / OTHER_FILE, replace(NANO, feature_channels=32))
    folders.register()
    before = folder_paths.folder_names_and_paths[folders.FOLDER]
    folder_paths.folder_names_and_paths[folders.FOLDER] = ([str(path)], before[1])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folders, "DEMO_DIR", path)  # the pack's own one is no matter here
        yield path
    folder_paths.folder_names_and_paths[folders.FOLDER] = before


@pytest.fixture(scope="module")
def one(nano, nano_vae):
    """(image, features, latent) of 75x50 px: 80x56 px when padded."""
    from support.decoding import encoded

    image = tiny.image(50, 75, seed=4)
    return image, *encoded(nano, nano_vae, image)
