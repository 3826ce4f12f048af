"""Names and shapes of the layers of SDXL-family UNets (LDM names), without a library that would build them.

For files that say nothing of the UNet that they are for, such as a LoRA. Compared with diffusers' networks by a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SIZE_EMBEDDING_CHANNELS = 6 * 256
"""SDXL: height, width, crop top, crop left, target height, target width, 256 channels each."""


@dataclass(frozen=True, kw_only=True)
class UNetDepths:
    """Widths and depths; defaults are SDXL's (its unet/config.json)."""

    channels: tuple[int, ...] = (320, 640, 1280)
    layers: int = 2
    """ResNet blocks on each level of the way down (one more on the way up)."""
    transformers: tuple[int, ...] = (0, 2, 10)
    """Transformer blocks of one attention layer on each level; 0 = none."""
    middle_attention: bool = True
    context_width: int = 2048
    pooled_width: int = 1280


KNOWN_UNETS = {
    "SDXL": UNetDepths(),
    "Segmind-Vega": UNetDepths(transformers=(0, 1, 2), middle_attention=False),
    "the nano model": UNetDepths(channels=(64, 128, 128), layers=1, transformers=(0, 1, 1), context_width=64, pooled_width=64),
}
"""Whose layers a file may be for. SSD-1B leaves out blocks of SDXL, so that its names are among SDXL's."""


def layer_weights(sizes: UNetDepths) -> dict[str, torch.Tensor]:
    """{name: weight without data (meta)} of every linear layer and convolution."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels, time = sizes.channels, 4 * sizes.channels[0]

    def block(name: str, index: int, wide_in: int, level: int) -> None:
        wide = channels[level]
        shapes.update(_resnet(f"{name}.{index}", wide_in, wide, time))
        if sizes.transformers[level]:
            shapes.update(_attention(f"{name}.{index + 1}", wide, sizes.transformers[level], sizes.context_width))

    for name, wide_in in (("time_embed", channels[0]), ("label_emb.0", sizes.pooled_width + SIZE_EMBEDDING_CHANNELS)):
        shapes |= {f"{name}.0": (time, wide_in), f"{name}.2": (time, time)}
    shapes |= {"input_blocks.0.0": (channels[0], 4, 3, 3), "out.2": (4, channels[0], 3, 3)}
    number, held, skips = 1, channels[0], [channels[0]]
    last = len(channels) - 1
    for level in range(len(channels)):
        for _ in range(sizes.layers):
            block(f"input_blocks.{number}", 0, held, level)
            held = channels[level]
            skips.append(held)
            number += 1
        if level < last:
            shapes[f"input_blocks.{number}.0.op"] = (held, held, 3, 3)
            skips.append(held)
            number += 1
    shapes |= _resnet("middle_block.0", held, held, time)
    if sizes.middle_attention:
        shapes |= _attention("middle_block.1", held, sizes.transformers[-1], sizes.context_width)
        shapes |= _resnet("middle_block.2", held, held, time)
    number = 0
    for level in reversed(range(len(channels))):
        for layer in range(sizes.layers + 1):
            block(f"output_blocks.{number}", 0, held + skips.pop(), level)
            held = channels[level]
            if level and layer == sizes.layers:
                index = 2 if sizes.transformers[level] else 1
                shapes[f"output_blocks.{number}.{index}.conv"] = (held, held, 3, 3)
            number += 1
    return {f"{name}.weight": torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _resnet(name: str, wide_in: int, wide: int, time: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.in_layers.2": (wide, wide_in, 3, 3),
        f"{name}.emb_layers.1": (wide, time),
        f"{name}.out_layers.3": (wide, wide, 3, 3),
    }
    if wide_in != wide:
        shapes[f"{name}.skip_connection"] = (wide, wide_in, 1, 1)
    return shapes


def _attention(name: str, wide: int, depth: int, context: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.proj_in": (wide, wide), f"{name}.proj_out": (wide, wide)}
    for number in range(depth):
        inner = f"{name}.transformer_blocks.{number}"
        for attention, wide_in in (("attn1", wide), ("attn2", context)):
            shapes |= {f"{inner}.{attention}.{each}": (wide, wide) for each in ("to_q", "to_out.0")}
            shapes |= {f"{inner}.{attention}.{each}": (wide, wide_in) for each in ("to_k", "to_v")}
        shapes |= {f"{inner}.ff.net.0.proj": (8 * wide, wide), f"{inner}.ff.net.2": (wide, 4 * wide)}
    return shapes
