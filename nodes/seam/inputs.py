"""What a node is given, looked at before it works.

The host checks numbers and choices against their bounds, but takes any JSON where a link belongs, NaN for a number, and whatever
other packs' nodes give. What an input has to be is read off the node's own schema.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io

from ...faithdiff_core.geometry import LATENT_CELL_PX
from ...faithdiff_core.unet_layers import SIZE_EMBEDDING_CHANNELS
from .unet_loader import require_sdxl

ATTRIBUTES = {
    "MODEL": ("model", "clone"), "FAITHDIFF_MODEL": ("encoder", "alignment"),
    "FAITHDIFF_FEATURES": ("features_BCHW", "size_px", "lq_BHWC"),
    "FAITHDIFF_PHOTO": ("source", "alpha_HW"), "FAITHDIFF_FOLDER": ("job", "begun", "photo"),
    "CLIP": ("tokenize",), "VAE": ("encode", "decode"), "UPSCALE_MODEL": ("scale",),
}  # fmt: skip
"""What a value of each type has to have; other packs' classes need not be the host's."""
FROM_A_VAE = "if it comes from a VAE, start ComfyUI with --fp32-vae; otherwise check what is connected"
"""What makes NaN of a picture more often than anything else: SDXL's own VAE overflows in half precision."""
UNPAINTED_PX = 64
"""Side of the mask of zeros that the host's Load Image gives with a picture without alpha (H nodes.py, LoadImage)."""
MAY_BE_NONE = ("CLIP", "VAE")
"""A checkpoint gives None where it has none; the node that needs them says what to do then."""


def painted(mask: torch.Tensor | None) -> torch.Tensor | None:
    """The mask, or None for the one that Load Image gives where nothing was painted."""
    if mask is not None and tuple(mask.shape[-2:]) == (UNPAINTED_PX, UNPAINTED_PX) and not mask.any():
        return None
    return mask


def checked(execute: Callable[..., Any]) -> Callable[..., Any]:
    """For a node's `execute`: raises ValueError, with one message, where an input is not what the node's schema says.

    A node that takes every input as a list has each value of each list looked at.
    """
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def with_checks(cls: Any, *args: Any, **kwargs: Any) -> Any:
        schema = cls.define_schema()
        given = signature.bind_partial(cls, *args).arguments | kwargs
        for part in schema.inputs:
            if not part.optional and part.id not in given:  # the host hands on no choice that it does not know
                raise ValueError(f"expected one of the choices of {part.id}, got none that there is; choose one")
            for value in given.get(part.id, []) if schema.is_input_list else [given.get(part.id)]:
                if value is not None or not part.optional:
                    _check(part, value)
        return execute(cls, *args, **kwargs)

    return with_checks


def _check(part: Any, value: Any) -> None:
    """Raises ValueError where a value is not of the type of an input of the schema."""
    kind = part.io_type
    if kind in CHECKS:
        CHECKS[kind](part.id, value)
    elif kind in ATTRIBUTES:
        if not (value is None and kind in MAY_BE_NONE) and not all(hasattr(value, name) for name in ATTRIBUTES[kind]):
            raise ValueError(f"expected a {kind} as {part.id}, got {_described(value)}; connect a node that gives one")
    elif isinstance(part, io.DynamicCombo.Input) and isinstance(value, dict):  # a choice, and the inputs that depend on it
        for dependent in (each for option in part.options for each in option.inputs if each.id in value):
            _check(dependent, value[dependent.id])
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number as {part.id}, got {value}; give one")


def _check_image(name: str, value: Any) -> None:
    sound = isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[3] >= 3 and 0 not in value.shape
    if not sound or not value.is_floating_point():
        raise ValueError(
            f"expected an IMAGE (batch, height, width, 3 or 4 channels) of numbers in [0, 1] as {name}, got {_described(value)}; "
            "check what is connected"
        )


def _check_mask(name: str, value: Any) -> None:
    if not isinstance(value, torch.Tensor) or value.ndim < 2 or 0 in value.shape or not torch.isfinite(value).all():
        raise ValueError(f"expected a MASK of finite numbers as {name}, got {_described(value)}; check what is connected")


def _check_latent(name: str, value: Any) -> None:
    samples = value.get("samples") if isinstance(value, dict) else None
    if isinstance(samples, torch.Tensor) and (samples.ndim < 3 or 0 in samples.shape):
        raise ValueError(
            f"expected an SDXL image latent (batch, 4, height, width) as {name}, got {_described(samples)}; use the latent from "
            "FaithDiff Encode LQ Features"
        )
    if not isinstance(samples, torch.Tensor) and not getattr(samples, "is_nested", False):
        raise ValueError(f"expected a LATENT as {name}, got {_described(value)}; connect a node that gives one")


def _check_conditioning(name: str, value: Any) -> None:
    entries = value if isinstance(value, (list, tuple)) else [None]
    for entry in entries:
        pair = entry if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)
        if not isinstance(pair[0], torch.Tensor) or not isinstance(pair[1], dict):
            raise ValueError(f"expected a CONDITIONING as {name}, got {_described(value)}; connect a node that encodes prompts")


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"expected text as {name}, got {_described(value)}; connect a node that gives text, or type it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(f"expected Unicode text as {name}, got half a character at place {e.start + 1}; take it out") from None


CHECKS = {
    "IMAGE": _check_image,
    "MASK": _check_mask,
    "LATENT": _check_latent,
    "CONDITIONING": _check_conditioning,
    "STRING": _check_text,
}


def check_vae(vae: Any) -> None:
    """Raises ValueError where a VAE does not make SDXL's latents."""
    if vae.latent_channels != 4 or vae.downscale_ratio != LATENT_CELL_PX:
        got = f"{vae.latent_channels} channels at 1/{vae.downscale_ratio}"
        raise ValueError(f"expected an SDXL VAE (4 channels at 1/8), got one of {got}; take the VAE of an SDXL checkpoint")


def check_prompt(name: str, conditioning: list, model: Any) -> None:
    """Raises ValueError where a CONDITIONING is empty, is not finite, or was not made for this SDXL MODEL."""
    unet_config = require_sdxl(model, "model").model_config.unet_config
    wanted = (unet_config["context_dim"], unet_config["adm_in_channels"] - SIZE_EMBEDDING_CHANNELS)
    if not conditioning:
        raise ValueError(f"expected a prompt as {name}, got none; connect FaithDiff Prompt or CLIP Text Encode")
    for context_BNC, options in conditioning:
        pooled_BC = options.get("pooled_output")
        got = (context_BNC.shape[-1], 0 if pooled_BC is None else pooled_BC.shape[-1])
        if got != wanted and "unclip_conditioning" not in options:  # with it the host makes the pooled part itself
            raise ValueError(
                f"expected an SDXL prompt {wanted[0]} wide with a pooled part of {wanted[1]} as {name}, got {got[0]} wide with "
                f"{got[1] or 'none'}; encode it with the CLIP that belongs to the MODEL"
            )
        if not all(torch.isfinite(part).all() for part in (context_BNC, pooled_BC) if part is not None):
            raise ValueError(f"expected finite numbers in {name}, got NaN or infinity; check the weights of words in the prompt")


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "none" if value is None else type(value).__name__
    kind = str(value.dtype).removeprefix("torch.")
    unsound = value.is_floating_point() and not torch.isfinite(value).all()
    return f"shape {tuple(value.shape)} of {kind}{' with NaN or infinity' if unsound else ''}"
