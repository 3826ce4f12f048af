"""The fidelity decoder's file: a .safetensors of its own, whose tensors are named `faithdiff.fidelity_decoder.*`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import nn

from ..files.checkpoint import FIDELITY_DECODER_PREFIX
from ..files.checks import check_finite, check_state, first_line
from ..files.metadata import FORMAT, parse_metadata
from ..files.weight_file import AGAIN, check_weight_file
from .network import FidelityDecoder
from .sizes import FidelityDecoderSizes, fidelity_decoder_sizes

State = dict[str, torch.Tensor]
WHAT = "fidelity decoder"
FEATURE_WEIGHT = FIDELITY_DECODER_PREFIX + "feature_in.weight"
"""The tensor whose second side is the features' channels."""


def take_apart(state: Mapping[str, torch.Tensor], header: Mapping[str, str] | None) -> tuple[State, FidelityDecoderSizes]:
    """The weights in the names of `FidelityDecoder`, checked, and their sizes.

    Raises:
        ValueError: another file; weights missing, of another shape or not finite; a format newer than this code.
    """
    weights = {k[len(FIDELITY_DECODER_PREFIX) :]: t for k, t in state.items() if k.startswith(FIDELITY_DECODER_PREFIX)}
    foreign = len(state) - len(weights)
    if not weights or foreign:
        got = f"one with {foreign} other tensors" if weights else "one without any of its weights"
        raise ValueError(f"expected a file of a fidelity decoder, got {got}; choose one whose name ends in fidelity.safetensors")
    sizes = fidelity_decoder_sizes(weights, parse_metadata(header).config.get("fidelity_decoder", {}))
    check_finite(weights, WHAT)
    try:
        expected = FidelityDecoder(sizes, operations=nn, device="meta").state_dict()
    except (RuntimeError, TypeError) as e:  # more channels than a tensor can have, or than a number of torch's
        raise ValueError(f"expected usable sizes in the {WHAT}, got others ({first_line(e)}); {AGAIN}") from None
    check_state(expected, weights, WHAT)
    return weights, sizes


def channels_in_header(path: str | os.PathLike[str]) -> int:
    """The feature_channels of a file's decoder. Of the file its header alone is read.

    Raises:
        ValueError: no .safetensors, a damaged one, or one without a fidelity decoder.
        OSError: it cannot be read.
    """
    if check_weight_file(path):
        with cast("Any", safe_open(path, framework="pt")) as file:  # its types stop at the name
            shape = file.get_slice(FEATURE_WEIGHT).get_shape() if FEATURE_WEIGHT in file.keys() else ()  # noqa: SIM118
        if len(shape) == 4:
            return shape[1]
    raise ValueError(f"expected a {WHAT} in a .safetensors file, got another file; {AGAIN}")


def put_together(weights: Mapping[str, torch.Tensor]) -> State:
    """The tensors of a file."""
    return {FIDELITY_DECODER_PREFIX + name: value for name, value in weights.items()}


def header_of(sizes: FidelityDecoderSizes, *, licence: str, training: Mapping[str, Any]) -> dict[str, str]:
    """The file's safetensors header: sizes, licence, and what it was trained by and for."""
    return {
        "faithdiff.format": FORMAT,
        "faithdiff.license": licence,
        "faithdiff.config": json.dumps({"fidelity_decoder": asdict(sizes)}),
        "faithdiff.training": json.dumps(dict(training)),
    }
