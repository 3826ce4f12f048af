"""LoRA files of any tool: which of their layers belong to a UNet, merged into it or in the names of the host's Load LoRA.

Names known: peft's (`unet.*.lora_A.weight`, `base_model.model.*.lora_A.default.weight`), diffusers' older ones
(`*.processor.to_q_lora.down.weight`), kohya's (`lora_unet_*.lora_down.weight`), over a UNet in diffusers' or LDM names.

Shapes: r = rank; down (r, in, ...), up (out, r, ...), the weight (out, in, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from .files.checkpoint import FaithDiffParts
from .files.checks import named, shown
from .files.keymap import ldm_to_diffusers
from .files.wrappers import lora_layer, unwrapped

State = dict[str, torch.Tensor]

HOST_PREFIX = "lora_unet_"
"""Of a LoRA's names in the host (comfy/lora.py, model_lora_keys_unet) and in kohya's files: the name with _ for every dot."""
_QUANTISED = (".weight_scale", ".scale_weight", ".comfy_quant")
"""Beside a weight whose numbers are another format's (H comfy/utils.py, convert_old_quants)."""


@dataclass(frozen=True)
class LoraSettings:
    """What peft keeps beside the weights: `alpha` None = as large as the rank; `root` = rank-stabilised, by the rank's root."""

    alpha: float | None = None
    root: bool = False


@dataclass(frozen=True)
class Factors:
    """Of one layer: what is added to its weight is scale * up @ down."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


@dataclass(frozen=True)
class FittedLora:
    """The layers of a LoRA that a UNet has.

    Attributes:
        layers: {LDM name of the weight: factors}.
        others: the file's names of the layers that do not fit.
    """

    layers: dict[str, Factors]
    others: list[str]

    def __str__(self) -> str:
        total = len(self.layers) + len(self.others)
        return f"{len(self.layers)} of {total} layers fit" + (f" (not {named(self.others)})" if self.others else "")

    def host_state(self) -> State:
        """In the names of the host's Load LoRA, with an alpha that carries the scale."""
        state: State = {}
        for name, factors in self.layers.items():
            layer = HOST_PREFIX + name.removesuffix(".weight").replace(".", "_")
            state[f"{layer}.lora_down.weight"], state[f"{layer}.lora_up.weight"] = factors.down, factors.up
            state[f"{layer}.alpha"] = torch.tensor(factors.scale * len(factors.down))
        return state


def fit_lora(
    lora: Mapping[str, torch.Tensor], unet: Mapping[str, torch.Tensor], settings: LoraSettings | None = None
) -> FittedLora:
    """Which layers of a LoRA the UNet has, by name and shape.

    Args:
        lora: a file's tensors.
        unet: LDM names without prefix; only shapes are looked at.
        settings: for layers without an alpha of their own.

    Raises:
        ValueError: none fits, a layer without one of its factors, or magnitudes (DoRA), which are more than a LoRA.
    """
    layers: dict[str, Factors] = {}
    others: list[str] = []
    names = _layer_names(unet)
    for layer, tensors in _by_layer(lora).items():
        target = _target(layer, names)
        factors = _factors(layer, tensors, settings or LoraSettings())
        if target is None or not _same_shape(factors, unet[target]):
            others.append(layer)
        else:
            layers[target] = factors
    if not layers:
        wanted = next((name for name in names if ".to_q" in name), next(iter(names), "none"))
        raise ValueError(
            f"expected a LoRA for this UNet (layers such as {shown(wanted)}), got none of {len(others)} that fits "
            f"({named(others)}); choose one that was trained on SDXL"
        )
    return FittedLora(layers, others)


def merged(unet: Mapping[str, torch.Tensor], lora: FittedLora) -> State:
    """The UNet with the LoRA added to its weights, in their own types; the others are shared with `unet`.

    Raises:
        ValueError: a layer whose weight is quantised.
    """
    state = dict(unet)
    for name, factors in lora.layers.items():
        weight, layer = unet[name], name.removesuffix(".weight")
        if not weight.is_floating_point() or any(layer + mark in unet for mark in _QUANTISED):
            raise ValueError(f"expected a UNet of plain weights to merge a LoRA into, got {shown(name)} quantised; use Load LoRA")
        change = factors.up.float().flatten(1) @ factors.down.float().flatten(1)
        state[name] = (weight.float() + factors.scale * change.reshape(weight.shape)).to(weight.dtype)
    return state


def with_own_lora(parts: FaithDiffParts) -> FaithDiffParts:
    """A file's parts with the LoRA that came in the same file merged into its UNet, and a note of how much of it fits.

    Without a UNet it stays in `lora`: the caller knows which UNet it is for.

    Raises:
        ValueError: as `fit_lora`, `merged`.
    """
    if not parts.lora or parts.unet is None:
        return parts
    fitted = fit_lora(parts.lora, parts.unet)
    return replace(parts, unet=merged(parts.unet, fitted), lora={}, note=f"LoRA: {fitted}")


def _layer_names(unet: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """{a layer's name as some tool writes it: LDM name of its weight}."""
    diffusers = ldm_to_diffusers(unet)
    names: dict[str, str] = {}
    for weight in unet:
        if not weight.endswith(".weight"):
            continue
        for name in (diffusers.get(weight, weight), weight):
            layer = name.removesuffix(".weight")
            names[layer] = names[HOST_PREFIX + layer.replace(".", "_")] = weight
            # diffusers before 0.22 named a LoRA by its attention processor (H comfy/lora.py, model_lora_keys_unet).
            if ".to_" in layer:
                names[layer.replace(".to_", ".processor.to_").removesuffix(".0")] = weight
    return names


def _by_layer(lora: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in lora.items():
        layer = lora_layer(name)
        if layer is not None:
            layers.setdefault(layer, {})[name[len(layer) :]] = tensor
    return layers


def _target(layer: str, names: Mapping[str, str]) -> str | None:
    return next((names[bare] for bare in unwrapped(layer) if bare in names), None)


def _factors(layer: str, tensors: Mapping[str, torch.Tensor], settings: LoraSettings) -> Factors:
    odd = [end for end in tensors if "magnitude" in end or "dora" in end]
    if odd:
        raise ValueError(f"expected a plain LoRA, got DoRA ({shown(layer + odd[0])}); load it with Load LoRA")
    down, up = (
        next((tensor for end, tensor in tensors.items() if any(mark in end for mark in marks)), None)
        for marks in (("lora_A", "down"), ("lora_B", "up"))
    )
    if down is None or up is None or min(down.ndim, up.ndim) < 2 or not up.numel() or len(down) != up[0].numel():
        raise ValueError(
            f"expected two factors of one rank for each layer of the LoRA, got others in {shown(layer)}; get it again"
        )
    rank = len(down)
    own = tensors.get(".alpha")
    if own is not None:
        if own.numel() != 1:
            raise ValueError(f"expected one number as alpha of {shown(layer)}, got shape {tuple(own.shape)}; get it again")
        return Factors(down, up, float(own) / rank)
    alpha = rank if settings.alpha is None else settings.alpha
    return Factors(down, up, alpha / (math.sqrt(rank) if settings.root and settings.alpha is not None else rank))


def _same_shape(factors: Factors, weight: torch.Tensor) -> bool:
    return weight.ndim > 1 and len(factors.up) == len(weight) and factors.down[0].numel() == weight[0].numel()
