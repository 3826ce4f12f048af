"""UNet parameter names: diffusers (`down_blocks.0.resnets.0.conv1`) and LDM (`input_blocks.1.0.in_layers.2`), both ways.

The released file uses the former, ComfyUI and our own files the latter. Both maps are made from the names present, so any
depth of an SDXL-family UNet is served (checked against every name of SDXL, SSD-1B and Vega).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SINGLE = (
    ("input_blocks.0.0", "conv_in"),
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
)
"""(LDM, diffusers) without the trailing .weight / .bias."""
_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
"""The same of the layers inside a residual block."""
Block = tuple[str, str, str]
"""(prefix in the source names, prefix in the target names, "resnet" | "same")."""
_RESNET_TO_LDM = {d: ldm for ldm, d in _RESNET}
_RESNET_TO_DIFFUSERS = dict(_RESNET)


def is_diffusers_unet(keys: Iterable[str]) -> bool:
    """Whether a UNet with these parameters has diffusers' names."""
    return any(key.startswith(("down_blocks.", "up_blocks.", "mid_block.")) for key in keys)


def diffusers_to_ldm(keys: Iterable[str]) -> dict[str, str]:
    """{diffusers name: LDM name} for the names that have one; the caller deals with the rest."""
    keys = list(keys)
    return _renamed(keys, _diffusers_blocks(keys), _RESNET_TO_LDM)


def ldm_to_diffusers(keys: Iterable[str]) -> dict[str, str]:
    """{LDM name: diffusers name} for the names that have one."""
    keys = list(keys)
    return _renamed(keys, _ldm_blocks(keys), _RESNET_TO_DIFFUSERS)


def _renamed(keys: list[str], blocks: list[Block], resnet_layers: dict[str, str]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for key in keys:
        for prefix, target, kind in blocks:
            if key.startswith(prefix):
                rest = key[len(prefix) :]
                inner = _rename_resnet(rest, resnet_layers) if kind == "resnet" else rest
                if inner is not None:
                    renamed[key] = target + inner
                break
    return renamed


def _rename_resnet(rest: str, table: dict[str, str]) -> str | None:
    layer, _, leaf = rest.rpartition(".")
    return f"{table[layer]}.{leaf}" if layer in table else None


def _indices(keys: Iterable[str], pattern: str) -> list[int]:
    """Sorted distinct values of the pattern's one group over the keys that match it."""
    return sorted({int(m[1]) for key in keys if (m := re.match(pattern, key))})


def _diffusers_blocks(keys: list[str]) -> list[Block]:
    blocks: list[Block] = [(f"{d}.", f"{ldm}.", "same") for ldm, d in _SINGLE]
    n = 1  # input_blocks.0 is the first convolution
    for i in _indices(keys, r"down_blocks\.(\d)\."):  # one digit: SDXL has 3 levels of 3 layers; each costs a pass over all names
        for j in _indices(keys, rf"down_blocks\.{i}\.resnets\.(\d)\."):
            blocks.append((f"down_blocks.{i}.resnets.{j}.", f"input_blocks.{n}.0.", "resnet"))
            blocks.append((f"down_blocks.{i}.attentions.{j}.", f"input_blocks.{n}.1.", "same"))
            n += 1
        if any(key.startswith(f"down_blocks.{i}.downsamplers.0.conv.") for key in keys):
            blocks.append((f"down_blocks.{i}.downsamplers.0.conv.", f"input_blocks.{n}.0.op.", "same"))
            n += 1
    blocks.append(("mid_block.resnets.0.", "middle_block.0.", "resnet"))
    blocks.append(("mid_block.attentions.0.", "middle_block.1.", "same"))
    blocks.append(("mid_block.resnets.1.", "middle_block.2.", "resnet"))
    n = 0
    for i in _indices(keys, r"up_blocks\.(\d)\."):
        layers = _indices(keys, rf"up_blocks\.{i}\.resnets\.(\d)\.")
        attends = any(key.startswith(f"up_blocks.{i}.attentions.") for key in keys)
        for j in layers:
            blocks.append((f"up_blocks.{i}.resnets.{j}.", f"output_blocks.{n}.0.", "resnet"))
            blocks.append((f"up_blocks.{i}.attentions.{j}.", f"output_blocks.{n}.1.", "same"))
            if j == layers[-1]:  # the upsampler stands behind the last block's layers
                blocks.append((f"up_blocks.{i}.upsamplers.0.conv.", f"output_blocks.{n}.{2 if attends else 1}.conv.", "same"))
            n += 1
    return blocks


def _ldm_blocks(keys: list[str]) -> list[Block]:
    blocks: list[Block] = [(f"{ldm}.", f"{d}.", "same") for ldm, d in _SINGLE]
    i = j = 0
    for n in _indices(keys, r"input_blocks\.(\d{1,2})\."):
        if n == 0:
            continue
        if any(key.startswith(f"input_blocks.{n}.0.op.") for key in keys):
            blocks.append((f"input_blocks.{n}.0.op.", f"down_blocks.{i}.downsamplers.0.conv.", "same"))
            i, j = i + 1, 0
            continue
        blocks.append((f"input_blocks.{n}.0.", f"down_blocks.{i}.resnets.{j}.", "resnet"))
        blocks.append((f"input_blocks.{n}.1.", f"down_blocks.{i}.attentions.{j}.", "same"))
        j += 1
    blocks.append(("middle_block.0.", "mid_block.resnets.0.", "resnet"))
    blocks.append(("middle_block.1.", "mid_block.attentions.0.", "same"))
    blocks.append(("middle_block.2.", "mid_block.resnets.1.", "resnet"))
    i = j = 0
    for n in _indices(keys, r"output_blocks\.(\d{1,2})\."):
        upsamplers = [
            p for p in (f"output_blocks.{n}.1.conv.", f"output_blocks.{n}.2.conv.") if any(key.startswith(p) for key in keys)
        ]
        blocks.extend(
            (p, f"up_blocks.{i}.upsamplers.0.conv.", "same") for p in upsamplers
        )  # before .1., which they may begin with
        blocks.append((f"output_blocks.{n}.0.", f"up_blocks.{i}.resnets.{j}.", "resnet"))
        blocks.append((f"output_blocks.{n}.1.", f"up_blocks.{i}.attentions.{j}.", "same"))
        j += 1
        if upsamplers:
            i, j = i + 1, 0
    return blocks
