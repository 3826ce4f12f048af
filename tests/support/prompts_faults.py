"""Faults on purpose, at named places of a run: out of memory, NaN, or a wait to be interrupted.

Used in a test's own process and, with prompts_pack.py, inside a server. Knows functions by their file, because the host names a
pack's modules by where it found them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

# Place -> file and function, where its caller looks it up.
PLACES = {
    "read weights": ("nodes/load_model.py", "read_weights"),
    "build UNet": ("nodes/load_model.py", "load_unet"),
    "build modules": ("nodes/load_model.py", "build_model"),
    "build VAE": ("nodes/load_nano_vae.py", "load_nano_vae"),
    "enlarge": ("nodes/upscale.py", "lanczos"),
    "text encoder": ("comfy/sd.py", "CLIP.encode_from_tokens_scheduled"),
    "LQ encoder": ("faithdiff_core/lq_encoder.py", "LQEncoder.forward"),
    "VAE encoder": ("comfy/sd.py", "VAE.encode"),
    "move to device": ("comfy/model_management.py", "load_models_gpu"),
    "noise": ("comfy/sample.py", "prepare_noise"),
    "embed features": ("faithdiff_core/alignment.py", "AlignmentModule.embed"),
    "alignment": ("faithdiff_core/alignment.py", "AlignmentModule.forward"),
    "UNet": ("comfy/ldm/modules/diffusionmodules/openaimodel.py", "UNetModel._forward"),
    "cut conditions": ("nodes/tiles/conditions.py", "TileConditions.cut"),
    "VAE decoder": ("comfy/sd.py", "VAE.decode"),
    "fidelity decoder": ("faithdiff_core/fidelity_decoder/network.py", "FidelityDecoder.corrections"),
    "colour fix": ("nodes/color_fix.py", "fix_colors"),
    "consistency": ("nodes/reporting/measure.py", "consistency"),
    "colour drift": ("nodes/reporting/measure.py", "color_drift"),
    "seams": ("nodes/reporting/measure.py", "find_seams"),
    "heat map": ("nodes/report.py", "draw"),
    "attribution sums": ("nodes/attribution_maps/hook.py", "Attribution.shares"),
    "attribution pictures": ("nodes/attribution.py", "show"),
}
# Give nothing that could hold NaN; or, as the colour fix and the sums of attribution do, only what was looked at before.
NO_TENSORS = (
    "colour fix", "read weights", "build UNet", "build modules", "build VAE", "move to device", "cut conditions", "consistency",
    "colour drift", "seams", "heat map", "attribution sums", "attribution pictures",
)  # fmt: skip
WAIT_S = 240.0  # for an interrupt that comes for certain, be the machine busy


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`what`: "memory", "nan" or "wait" (until somebody interrupts). It strikes at the `call`-th call of the place and, where
    `lasting`, at all later ones."""

    place: str
    what: str
    call: int = 1
    lasting: bool = False


class Struck:
    """How often a place was called and a fault struck; `told` is called when one does."""

    def __init__(self, told: Callable[[], Any] = lambda: None) -> None:
        self.calls, self.times, self.told = 0, 0, told


@contextmanager
def fault(wanted: Fault, told: Callable[[], Any] = lambda: None) -> Iterator[Struck]:
    """Until the end of the block, `wanted` strikes."""
    owner, name = _owner(*PLACES[wanted.place])
    plain, struck = getattr(owner, name), Struck(told)

    def limited(*args: Any, **kwargs: Any) -> Any:
        struck.calls += 1
        if struck.calls < wanted.call or (struck.calls > wanted.call and not wanted.lasting):
            return plain(*args, **kwargs)
        struck.times += 1
        struck.told()
        return _strike(wanted, lambda: plain(*args, **kwargs))

    setattr(owner, name, limited)
    try:
        yield struck
    finally:
        setattr(owner, name, plain)


def _strike(wanted: Fault, plain: Callable[[], Any]) -> Any:
    if wanted.what == "memory":
        raise torch.cuda.OutOfMemoryError("made up")
    if wanted.what == "wait":
        import comfy.model_management as mm

        ends_s = time.monotonic() + WAIT_S
        while not mm.processing_interrupted() and time.monotonic() < ends_s:
            time.sleep(0.005)
    return _nan(plain()) if wanted.what == "nan" else plain()


def _nan(value: Any) -> Any:
    """The value with one NaN in the middle of every floating tensor in it."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        value = value.clone(memory_format=torch.contiguous_format)
        value.view(-1)[value.numel() // 2] = float("nan")
        return value
    if isinstance(value, dict):
        return {key: _nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_nan(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _owner(file: str, path: str) -> tuple[Any, str]:
    """Who holds the function, module or class, and its name there."""
    found = [m for m in list(sys.modules.values()) if (getattr(m, "__file__", None) or "").replace(os.sep, "/").endswith(file)]
    *classes, name = path.split(".")
    owner: Any = found[0]
    for part in classes:
        owner = getattr(owner, part)
    assert hasattr(owner, name), f"{file} has no {path}"
    return owner, name
