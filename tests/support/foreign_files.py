"""Weight files as other tools, and failed downloads, leave them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
PAGE = b"<!DOCTYPE html>\n<html>Sign in</html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 10448791405\n"
SHARD = "diffusion_pytorch_model-{:05d}-of-{:05d}"
INDEX = {"metadata": {"total_size": 9}, "weight_map": {"a": SHARD.format(1, 2) + ".bin", "b": SHARD.format(2, 2) + ".bin"}}

NO_WEIGHTS = {
    "git lfs pointer": (POINTER, "got a Git LFS pointer, a short text in its place (10.4 GB); run `git lfs pull`"),
    "web page": (PAGE, "got a web page (HTML); the site wants a login or a click"),
    "web page after a byte order mark": (b"\xef\xbb\xbf\r\n  " + PAGE.lower(), "got a web page (HTML)"),
    "zipped web page": (gzip.compress(PAGE), "got a web page (HTML)"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "got a web page (HTML)"),
    "gzip": (gzip.compress(bytes(100)), "got a gzip archive; unpack it"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(100), "got a GGUF file; load it with a GGUF loader"),
    "index": (
        json.dumps(INDEX).encode(),
        "got an index, which has none itself but names 2 shards (diffusion_pytorch_model-00001",
    ),
    "json": (b'{"error": "Access to model is restricted"}', "got a text (JSON)"),
    "deep json": (b"[" * 100_000, "got a text (JSON)"),
    "empty": (b"", "got an empty file"),
}
"""Name: (content, what is said of it)."""

PREFIXES: dict[str, Callable[[str, bool], str]] = {
    "module.": lambda name, _: f"module.{name}",
    "_orig_mod.": lambda name, _: f"_orig_mod.{name}",
    "unet.": lambda name, _: f"unet.{name}",
    "model.": lambda name, _: f"model.{name}",
    "diffusion_model.": lambda name, _: f"diffusion_model.{name}",
    "model.diffusion_model.": lambda name, _: f"model.diffusion_model.{name}",
    "module._orig_mod.unet.": lambda name, _: f"module._orig_mod.unet.{name}",
    "base_model.model.": lambda name, _: f"base_model.model.{name}",
    "unet. on the UNet alone": lambda name, ours: name if ours else f"unet.{name}",
    "module. on all, diffusion_model. on the UNet": lambda name, ours: f"module.{name if ours else 'diffusion_model.' + name}",
}
"""Of a released file's names: (name, whether the LQ encoder's or the alignment's) to the name with prefixes."""
OURS = ("denoise_encoder.", "condition_embedding.", "information_transformer_layes.", "spatial_ch_projs.")


def prefixed(released: Mapping[str, torch.Tensor], prefix: str) -> State:
    return {PREFIXES[prefix](name, name.startswith(OURS)): value for name, value in released.items()}


def write_shards(folder: Path, state: Mapping[str, torch.Tensor], count: int, *, ending: str = ".safetensors") -> Path:
    """The state in so many files, in turn, and their index, whose path is returned."""
    folder.mkdir(exist_ok=True)
    weight_map = {}
    for number in range(count):
        name = SHARD.format(number + 1, count) + ending
        part = {key: state[key].contiguous() for key in list(state)[number::count]}
        weight_map |= dict.fromkeys(part, name)
        if ending == ".bin":
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, {"format": "pt"})
    index = folder / f"diffusion_pytorch_model{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def peft_lora(unet: Mapping[str, torch.Tensor], naming: str, layers: int = 3, rank: int = 2, seed: int = 7) -> State:
    """A LoRA of random factors for some attention layers and one convolution of a UNet in diffusers' names.

    `naming`: what becomes of (layer, "A" or "B"), with {layer} and {factor} in it.
    """
    g = torch.Generator().manual_seed(seed)
    names = [name.removesuffix(".weight") for name in unet if name.endswith(("attn1.to_q.weight", "to_out.0.weight"))][:layers]
    names.append(next(name.removesuffix(".weight") for name in unet if name.endswith("resnets.0.conv1.weight")))
    state = {}
    for name in names:
        weight = unet[f"{name}.weight"]
        down, up = torch.randn(rank, *weight.shape[1:], generator=g), torch.randn(len(weight), rank, generator=g)
        state[naming.format(layer=name, factor="A")] = down
        state[naming.format(layer=name, factor="B")] = up.reshape(*up.shape, *[1] * (weight.ndim - 2))
    return state


PEFT_NAMINGS = (
    "unet.{layer}.lora_{factor}.weight",
    "base_model.model.{layer}.lora_{factor}.weight",
    "base_model.model.unet.{layer}.lora_{factor}.default.weight",
)
