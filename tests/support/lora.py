"""A LoRA of random weights for two layers of the tiny UNet."""

from __future__ import annotations

import torch

from . import tiny


def made_up_lora(seed=11):
    g = torch.Generator().manual_seed(seed)
    width = 2 * tiny.WIDTH
    shapes = {"middle_block.1.proj_in": (width, width), "input_blocks.5.1.proj_out": (width, width)}
    state = {}
    for layer, (out_channels, in_channels) in shapes.items():
        name = "lora_unet_" + layer.replace(".", "_")
        state[f"{name}.lora_up.weight"] = torch.randn(out_channels, 4, generator=g)
        state[f"{name}.lora_down.weight"] = torch.randn(4, in_channels, generator=g)
        state[f"{name}.alpha"] = torch.tensor(4.0)
    return state
