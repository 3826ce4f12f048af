"""Sizes of the networks, read off a state dict, so that one code serves SDXL, SSD-1B, Vega and the nano model.

What weights cannot tell (how many heads or norm groups a layer has) comes from the file's `faithdiff.config`
metadata, with the released values as defaults.

`faithdiff.config` is a JSON object, every field optional::

    {"lq_encoder": {"norm_groups": 32},
     "alignment": {"num_heads": 8},
     "unet": {"num_head_channels": 64}}

plus, for readers, the sizes that the weights tell too; where both speak they must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch

from .files.checks import MAX_SHOWN_CHARACTERS, shown

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class LQEncoderSizes:
    """Defaults are the SDXL VAE's encoder (official unet_2d_condition_vae_extension.py:41-51)."""

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    in_channels: int = 3
    norm_groups: int = 32

    @property
    def downscale(self) -> int:
        """Pixels per feature cell along one axis."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True, kw_only=True)
class AlignmentSizes:
    """Defaults are the released module (official :386-396)."""

    model_channels: int = 320
    feature_channels: int = 512
    num_layers: int = 2
    mlp_channels: int = 1280
    num_heads: int = 8

    @property
    def token_channels(self) -> int:
        return 2 * self.model_channels


@dataclass(frozen=True, kw_only=True)
class UNetSizes:
    """The part of the UNet's shape that tells an SDXL-family net from others."""

    in_channels: int
    out_channels: int
    model_channels: int
    context_channels: int | None
    adm_channels: int | None
    num_head_channels: int = 64  # SDXL: every head is 64 wide (diffusers attention_head_dim 5, 10, 20 = numbers of heads)


def _count(state: State, pattern: str) -> int:
    """How many of pattern.format(0), pattern.format(1), ... begin some key."""
    before, after = pattern.split("{}")
    found = {key[len(before) :].partition(after)[0] for key in state if key.startswith(before) and after in key[len(before) :]}
    n = 0
    while str(n) in found:  # one pass over the names: a file may have very many
        n += 1
    return n


def lq_encoder_sizes(state: State, config: Mapping[str, Any]) -> LQEncoderSizes:
    """Sizes from LQ encoder weights (keys `conv_in.weight`, `down_blocks.0...`).

    Raises:
        ValueError: the keys do not make an encoder, or disagree with `config`.
    """
    levels = _count(state, "down_blocks.{}.resnets.")
    try:
        sizes = LQEncoderSizes(
            in_channels=state["conv_in.weight"].shape[1],
            block_out_channels=tuple(state[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)),
            layers_per_block=_count(state, "down_blocks.0.resnets.{}."),
        )
    except (KeyError, IndexError) as e:
        raise ValueError(
            f"expected the weights of an LQ encoder, got a file without a usable {_missing(e)}; get the file again"
        ) from None
    if levels * sizes.layers_per_block > len(state):  # before anything of that size is built
        raise ValueError(
            f"expected the weights of an LQ encoder, got {len(state)} for {levels} levels of {sizes.layers_per_block} layers; "
            "get the file again"
        )
    if not sizes.block_out_channels:
        raise ValueError("expected the weights of an LQ encoder, got a file without its down_blocks; get the file again")
    sizes = _with_config(sizes, config.get("lq_encoder", {}), "lq_encoder")
    if any(width % sizes.norm_groups for width in sizes.block_out_channels):
        raise ValueError(
            f"expected norm_groups to divide the encoder's widths {_text(sizes.block_out_channels)}, got {sizes.norm_groups}"
        )
    return sizes


def alignment_sizes(state: State, config: Mapping[str, Any]) -> AlignmentSizes:
    """Sizes from alignment weights in our names. Raises ValueError as `lq_encoder_sizes` does."""
    # A file that does not say how many blocks it has is the release or like it: a missing second block is damage, not a design.
    fields = {"num_layers": AlignmentSizes.num_layers, **config.get("alignment", {})}
    layers = _count(state, "blocks.{}.")
    without_blocks = layers == fields["num_layers"] == 0
    try:
        sizes = AlignmentSizes(
            model_channels=state["proj_out.weight"].shape[0],
            feature_channels=state["condition_embedding.conv_in.weight"].shape[1],
            num_layers=layers,
            # Without blocks there is no MLP: any width is right.
            mlp_channels=fields.get("mlp_channels", 0) if without_blocks else state["blocks.0.mlp_up.weight"].shape[0],
        )
    except (KeyError, IndexError) as e:
        raise ValueError(
            f"expected the weights of an alignment module, got a file without a usable {_missing(e)}; get the file again"
        ) from None
    sizes = _with_config(sizes, fields, "alignment")
    if sizes.token_channels % sizes.num_heads:
        raise ValueError(f"expected num_heads to divide the token width {sizes.token_channels}, got {sizes.num_heads}")
    return sizes


def unet_sizes(state: State, config: Mapping[str, Any]) -> UNetSizes:
    """Sizes from UNet weights in LDM names without prefix. Raises ValueError where it is no such UNet."""
    first = state.get("input_blocks.0.0.weight")
    if first is None or first.ndim != 4:
        raise ValueError(
            "expected the weights of an SDXL-family UNet, got a file without a usable input_blocks.0.0.weight; get the file again"
        )
    out = state.get("out.2.weight")
    label = state.get("label_emb.0.0.weight")
    context = next((t for key, t in state.items() if key.endswith("attn2.to_k.weight")), None)
    sizes = UNetSizes(
        in_channels=first.shape[1],
        out_channels=0 if out is None or out.ndim == 0 else out.shape[0],
        model_channels=first.shape[0],
        context_channels=None if context is None or context.ndim == 0 else context.shape[-1],
        adm_channels=None if label is None or label.ndim != 2 else label.shape[1],
    )
    return _with_config(sizes, config.get("unet", {}), "unet")


def config_of(lq_encoder: LQEncoderSizes, alignment: AlignmentSizes, unet: UNetSizes | None) -> dict[str, Any]:
    """The `faithdiff.config` object for these sizes."""
    config: dict[str, Any] = {"lq_encoder": asdict(lq_encoder), "alignment": asdict(alignment)}
    if unet is not None:
        config["unet"] = asdict(unet)
    return config


def _missing(error: KeyError | IndexError) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) else "weight of the right shape"


def _text(size: int | tuple[int, ...] | None) -> str:
    """What weights tell, as a message shows it: a damaged file may have a thousand levels."""
    return f"{size!s:.{MAX_SHOWN_CHARACTERS}}"


_NOT_IN_WEIGHTS = ("norm_groups", "num_heads", "num_head_channels")


def _with_config(sizes: Any, fields: Mapping[str, Any], section: str) -> Any:
    """`sizes` with what weights cannot tell taken from the file's config; a contradiction is an error."""
    for name, value in fields.items():
        if name not in asdict(sizes):
            continue  # written by a later version that knows more
        value = tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        if name in _NOT_IN_WEIGHTS:
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"expected a whole number for {name} in faithdiff.config, got {shown(value)}; get the file again"
                )
            sizes = replace(sizes, **{name: value})
        elif value != getattr(sizes, name):
            got = _text(getattr(sizes, name))
            raise ValueError(
                f"expected {section}.{name} = {shown(value)} as faithdiff.config says, got {got} from the weights; "
                "the file is damaged, get it again"
            )
    return sizes
