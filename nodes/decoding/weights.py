"""Which fidelity decoder belongs to the features, and loading it."""

from __future__ import annotations

import functools
import logging
import os

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...faithdiff_core.fidelity_decoder.files import WHAT, channels_in_header, take_apart
from ...faithdiff_core.fidelity_decoder.network import FidelityDecoder
from ..seam import folders
from ..seam.bundle import build_patcher
from ..seam.weights_file import read_weights

AUTO, NONE = "auto", "none"
"""Beside the names of files: the first that fits the features, and the plain VAE."""


def choices() -> list[str]:
    """For the node's list."""
    return [AUTO, NONE, *folders.fidelity_decoder_names()]


def fingerprint(choice: str) -> tuple:
    """Changes when a file does that the choice can come to."""
    if choice == NONE:
        return ()
    return tuple(folders.fingerprint(name) for name in (folders.fidelity_decoder_names() if choice == AUTO else [choice]))


def decoder_for(choice: str, feature_channels: int) -> comfy.model_patcher.ModelPatcher | None:
    """The patcher of a `FidelityDecoder` for features of so many channels; None for the plain VAE.

    Raises:
        ValueError: the file of that name is not there, is no fidelity decoder, is damaged, or is for other features.
    """
    names = folders.fidelity_decoder_names()
    if choice == AUTO:
        choice = next((name for name in names if _channels(name) == feature_channels), NONE)
        logging.info("FaithDiff: fidelity decoder for features of %d channels: %s", feature_channels, choice)
    if choice == NONE:
        return None
    if choice not in names:
        raise ValueError(
            f"expected a {WHAT} in models/faithdiff of the name {choice!r:.200}, got no such file; put it there and refresh the "
            f"page, or choose {AUTO}"
        )
    path = folders.weights_path(choice)
    stat = os.stat(path)
    patcher = _kept(path, stat.st_mtime_ns, stat.st_size)
    made_for = patcher.model.sizes.feature_channels
    if made_for != feature_channels:
        raise ValueError(
            f"{choice}: expected a {WHAT} for features of {feature_channels} channels, which the LQ encoder of this FaithDiff "
            f"file gives, got one for {made_for}; choose {AUTO}, or the one that was trained for this file"
        )
    return patcher


def load_decoder(path: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The decoder of a file; the host calls this once more for another device or without dynamic memory.

    Raises:
        ValueError: another file, or a damaged one; the message names it.
    """
    state, header = read_weights(path)
    try:
        patcher = build_decoder(state, header, disable_dynamic=disable_dynamic)
    except ValueError as e:
        raise ValueError(f"{os.path.basename(path)}: {e}") from None
    patcher.cached_patcher_init = (load_decoder, (path,))
    return patcher


def build_decoder(
    state: dict[str, torch.Tensor], header: dict[str, str], *, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The decoder of what a file holds.

    Raises:
        ValueError: as `take_apart`.
    """
    weights, sizes = take_apart(state, header)
    return build_patcher(
        lambda operations, **factory: FidelityDecoder(sizes, operations=operations, **factory),
        weights,
        WHAT,
        (mm.vae_device(), mm.vae_offload_device()),
        disable_dynamic,
    )


@functools.lru_cache(maxsize=1)
def _kept(path: str, mtime_ns: int, size_bytes: int) -> comfy.model_patcher.ModelPatcher:
    """The last one stays: it is small, and a second run should not read it again."""
    return load_decoder(path)


def _channels(name: str) -> int | None:
    """Of the features that a file is for. A file that cannot be read is passed over, with a warning."""
    try:
        return channels_in_header(folders.weights_path(name))
    except (ValueError, OSError) as e:
        logging.warning("FaithDiff: %s is left out: %s", name, e)
        return None
