"""What many tests of the trainer share: settings for short runs, pictures, which weights have a gradient."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import torch
from PIL import Image

QUICK = ["network=tiny", "precision=fp32", "warmup_steps=1", "log_every=1", "save_every=1000", "threads=1", "tracker=none"]
"""Of a recipe, for the tiny network."""

KEPT_AS_FP16 = 1e-3
"""Of the range: twice what rounding to fp16 can do to a value (2^-11 of it), whatever the machine."""

ROUNDED_AWAY = 1e-7
"""Of the largest gradient of a network: a weight that the loss does not depend on still gets some 1e-9 of it, by rounding, and
any that it depends on gets 5e-6 and more (measured on the networks of these tests, with three instruction sets)."""
NEVER_MATTER = {"lq_encoder.mid_block.attentions.0.to_k.bias", "lq_encoder.mid_block.resnets.1.conv2.bias"}
"""Weights of the tiny FaithDiff that its loss does not depend on. The first adds the same to all scores of a query, which softmax
takes out; the second's channels are each normalised by themselves in the next layer (32 groups of 32 channels). AdamW divides a
gradient by its own size, so it moves these by whole steps, whichever way rounding points."""


def without_gradient(module: torch.nn.Module) -> set[str]:
    """Names of the parameters that are to train and whose gradient is none, or nothing but rounding."""
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    norms = {name: 0.0 if value.grad is None else value.grad.norm().item() for name, value in parameters.items()}
    return {name for name, norm in norms.items() if norm <= ROUNDED_AWAY * max(norms.values())}


def picture(seed: int, height_px: int = 96, width_px: int = 128) -> torch.Tensor:
    """A smooth coloured picture with one edge, uint8 (3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height_px, width_px), mode="bicubic")[0].clamp(0, 1)
    smooth[:, :, width_px // 2 :] *= 0.6
    return (smooth * 255).round().to(torch.uint8)


def png(seed: int, height_px: int = 96, width_px: int = 128) -> bytes:
    """The same as a file."""
    written = io.BytesIO()
    Image.fromarray(picture(seed, height_px, width_px).permute(1, 2, 0).contiguous().numpy(), "RGB").save(written, format="PNG")
    return written.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    """A .tar file of these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path
