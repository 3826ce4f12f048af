"""The fidelity decoder as a file for the nodes, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from faithdiff_core.fidelity_decoder.files import header_of, put_together, take_apart
from faithdiff_core.fidelity_decoder.network import FidelityDecoder
from faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from faithdiff_core.files.storage import write_safetensors
from training.common.tensor_files import State, read_tensors
from training.model.networks import NetworkSpec

ENDING = "fidelity.safetensors"
"""Of the names that the nodes list."""


def require_name(out: Path) -> None:
    """Raise ValueError for a name that the nodes would not list."""
    if not out.name.endswith(ENDING):
        raise ValueError(f"expected --out to end in {ENDING}, by which the nodes know a fidelity decoder, got {out}, rename it")


def write_fidelity_decoder(
    path: Path, weights: State, sizes: FidelityDecoderSizes, *, training: Mapping[str, object], licence: str
) -> None:
    """Write weights (names of `FidelityDecoder`), atomically."""
    write_safetensors(path, put_together(weights), header_of(sizes, licence=licence, training=training))


def load_fidelity_decoder(path: Path) -> FidelityDecoder:
    """A decoder in fp32, frozen, in eval mode.

    Raises:
        ValueError: a file that is missing, damaged or of something else.
    """
    state, header = read_tensors(path)
    try:
        weights, sizes = take_apart(state, header)
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from None
    with torch.device("meta"):
        decoder = FidelityDecoder(sizes, operations=nn)
    decoder.load_state_dict({name: value.to(torch.float32, copy=True) for name, value in weights.items()}, assign=True)
    return decoder.eval().requires_grad_(False)


def load_fitting_decoder(path: Path, spec: NetworkSpec) -> FidelityDecoder:
    """The same for the LQ encoder of `spec`.

    Raises:
        ValueError: as `load_fidelity_decoder`; a decoder for features of another width.
    """
    decoder = load_fidelity_decoder(path)
    got, wanted = decoder.sizes.feature_channels, spec.fidelity_decoder.feature_channels
    if got != wanted:
        raise ValueError(
            f"expected a fidelity decoder for LQ features of {wanted} channels, which the model's are, got one for {got} "
            f"({path}); take the decoder that was trained for this model"
        )
    return decoder
