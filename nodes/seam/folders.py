"""Where weight files are looked for.

In `models/faithdiff` and `models/diffusion_models`, and what comes with the pack.
"""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...faithdiff_core.hub.catalogue import FILES

FOLDER = "faithdiff"
DEMO_DIR = Path(__file__).resolve().parents[2] / "demo"
NANO_VAE_SUFFIX = "vae.safetensors"
FIDELITY_DECODER_SUFFIX = "fidelity.safetensors"
"""Both keep their files out of the list of models, and the models out of theirs."""
STAND_INS = {file.name: file.half for file in FILES.values() if file.half}
"""Name -> the file that is taken where it is gone: what FaithDiff Get Weights makes of it. Workflows keep the name."""
HOW_TO_GET = (
    "press Get weights at the lower edge of the page or on Load FaithDiff Model, run the node FaithDiff Get Weights or `python "
    "-m training get-weights`, or put FaithDiff.bin (from https://huggingface.co/jychen9811/FaithDiff) or a FaithDiff "
    ".safetensors"
)
"""Where no weights are."""


def register() -> None:
    """Tells the host of `models/faithdiff`; paths that a user's extra_model_paths.yaml gave the name stay. Idempotent."""
    for path in (os.path.join(folder_paths.models_dir, FOLDER), str(DEMO_DIR)):
        folder_paths.add_model_folder_path(FOLDER, path)
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    if not extensions:  # a name that the host did not know starts without any
        folder_paths.folder_names_and_paths[FOLDER] = (paths, set(folder_paths.supported_pt_extensions))


def model_names() -> list[str]:
    """Names for the model list: ours first, then the host's UNet folder."""
    register()
    others = (NANO_VAE_SUFFIX, FIDELITY_DECODER_SUFFIX)
    ours = [n for n in folder_paths.get_filename_list(FOLDER) if not n.endswith(others)]
    names = ours + [n for n in folder_paths.get_filename_list("diffusion_models") if n not in ours]
    return names + [gone for gone, stand_in in STAND_INS.items() if stand_in in names and gone not in names]


def nano_vae_names() -> list[str]:
    """Names for the list of nano VAEs."""
    register()
    return [n for n in folder_paths.get_filename_list(FOLDER) if n.endswith(NANO_VAE_SUFFIX)]


def fidelity_decoder_names() -> list[str]:
    """Names for the list of fidelity decoders."""
    register()
    return [n for n in folder_paths.get_filename_list(FOLDER) if n.endswith(FIDELITY_DECODER_SUFFIX)]


def fingerprint(name: str) -> tuple[str, int, int]:
    """Changes when the file does, so that the host reads it again. A missing file is the node's to report, when it runs."""
    try:
        stat = os.stat(weights_path(name))
    except (ValueError, OSError):
        return (name, 0, 0)
    return (name, stat.st_mtime_ns, stat.st_size)


def weights_path(name: str) -> str:
    """Full path of a name from one of the lists, or of its stand-in.

    Raises:
        ValueError: no such file; the message names the folders and where the released weights are.
    """
    register()
    for each in (name, STAND_INS.get(name)):
        for folder in (FOLDER, "diffusion_models"):
            path = folder_paths.get_full_path(folder, each) if each else None
            if path is not None:
                return path
    raise ValueError(absent(name))


def absent(name: object) -> str:
    """The message for a name that no folder has."""
    return (
        f"expected the file {name!r:.200} in models/faithdiff or models/diffusion_models, found none; {HOW_TO_GET} into "
        f"{os.path.join(folder_paths.models_dir, FOLDER)} and refresh the page"
    )
