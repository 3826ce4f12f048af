"""Which network a file's weights belong to, read off their names and shapes (diffusers' names)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from training.model.networks import NETWORKS, TIME_EMBED_DIM, NetworkSpec

State = Mapping[str, torch.Tensor]


def unet_widths(state: State) -> dict[str, Any]:
    """The fields of NetworkSpec that a UNet's weights tell.

    Raises:
        ValueError: they are no SDXL-family UNet's.
    """
    levels = _count(state, r"down_blocks\.(\d+)\.")
    try:
        return {
            "unet_channels": tuple(state[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)),
            "unet_layers": _count(state, r"down_blocks\.0\.resnets\.(\d+)\."),
            "transformer_layers": tuple(
                _count(state, rf"down_blocks\.{i}\.attentions\.0\.transformer_blocks\.(\d+)\.") for i in range(1, levels)
            ),
            "middle_attention": any(name.startswith("mid_block.attentions.") for name in state),
            "context_width": next(v.shape[1] for name, v in state.items() if name.endswith("attn2.to_k.weight")),
            "pooled_width": state["add_embedding.linear_1.weight"].shape[1] - 6 * TIME_EMBED_DIM,
        }
    except (KeyError, IndexError, StopIteration) as error:
        lacking = error.args[0] if isinstance(error, KeyError) else "attention"
        raise ValueError(f"expected an SDXL-family UNet, got one without {lacking}, choose another file") from None


def vae_widths(state: State, prefix: str = "") -> dict[str, Any]:
    """The fields of NetworkSpec that the encoder's weights tell; `prefix` stands before `down_blocks`.

    Raises:
        ValueError: they are no VAE encoder's.
    """
    levels = _count(state, rf"{re.escape(prefix)}down_blocks\.(\d+)\.")
    try:
        return {
            "vae_channels": tuple(state[f"{prefix}down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)),
            "vae_layers": _count(state, rf"{re.escape(prefix)}down_blocks\.0\.resnets\.(\d+)\."),
        }
    except (KeyError, IndexError) as error:
        raise ValueError(f"expected a VAE encoder, got one without {error.args[0]}, choose another file") from None


def fits(widths: Mapping[str, Any], spec: NetworkSpec) -> bool:
    """Whether every width told is the network's."""
    return all(getattr(spec, name) == value for name, value in widths.items())


def require(widths: Mapping[str, Any], spec: NetworkSpec, what: str, source: object) -> None:
    """Raise ValueError naming the first width that is not the network's, and the network that it would be."""
    for name, value in widths.items():
        if getattr(spec, name) != value:
            others = [other for other, each in NETWORKS.items() if fits(widths, each)]
            hint = f"choose another file or --set network={others[0]}" if others else "choose another file"
            raise ValueError(f"expected a {what} with {name} {getattr(spec, name)}, got {value} in {source}, {hint}")


def _count(state: State, pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})
