"""Predictions that overflow in half precision are computed again in fp32, tile by tile, instead of turning the picture black."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_base
import torch

from .run import TileUnit

HALF_TYPES = (torch.float16, torch.bfloat16)
NOT_FINITE = (
    "expected a finite latent from the sampler, got NaN or infinity; lower cfg or strength, another sampler, or start ComfyUI "
    "with --force-fp32"
)

Predict = Callable[[list[TileUnit]], list[torch.Tensor]]


def finite_predictions(
    predict: Predict, units: list[TileUnit], models: list[comfy.model_base.SDXL], *, splittable: bool
) -> tuple[list[torch.Tensor], int]:
    """The predictions (N, 4, h, w) for each prompt, and how many of the units were computed again.

    Args:
        predict: calls the network for some units.
        units: the tiles of the call.
        models: every copy of the network that `predict` may use.
        splittable: whether `predict` can be asked for some of the units only.

    Raises:
        ValueError: not finite in fp32 either.
    """
    outs = predict(units)
    if models[0].get_dtype_inference() not in HALF_TYPES:
        return outs, 0
    bad = _not_finite(outs)
    if not bad:
        return outs, 0
    with computing_in_fp32(models):
        if splittable:
            for i in bad:
                for out, again in zip(outs, predict([units[i]]), strict=True):
                    out[i : i + 1] = again
        else:
            outs = predict(units)
    if _not_finite(outs):
        raise ValueError(NOT_FINITE)
    return outs, len(bad)


@contextmanager
def computing_in_fp32(models: list[comfy.model_base.SDXL]) -> Iterator[None]:
    """Lets the networks compute in fp32 on weights that stay as they are: every layer casts its own at each use."""
    casts, layers = [model.manual_cast_dtype for model in models], []
    try:
        for model in models:
            model.manual_cast_dtype = torch.float32
            for layer in model.diffusion_model.modules():
                if getattr(layer, "comfy_cast_weights", None) is False:  # the host's layers that compute in their weights' type
                    layer.comfy_cast_weights = True
                    layers.append(layer)
        yield
    finally:
        for model, cast in zip(models, casts, strict=True):
            model.manual_cast_dtype = cast
        for layer in layers:
            layer.comfy_cast_weights = False


def models_of(model: comfy.model_base.SDXL, model_options: dict[str, Any]) -> list[comfy.model_base.SDXL]:
    """The network and its copies on further devices, where the host spreads prompts over several."""
    clones = model_options.get("multigpu_clones", {})
    return [model, *(patcher.model for patcher in clones.values() if patcher.model is not model)]


def _not_finite(outs: list[torch.Tensor]) -> list[int]:
    finite_N = torch.stack([torch.isfinite(out).flatten(1).all(dim=1) for out in outs]).all(dim=0)
    return torch.nonzero(~finite_N).flatten().tolist()
