"""UNet weights in LDM names to a host MODEL.

The host's own `load_diffusion_model_state_dict` is not called, for three reasons: it knows no net of other than published
sizes, it copies every tensor (twice the file in RAM), and it only warns of missing ones. What it decides (types, operations,
memory) is asked of the same host functions here.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.model_base
import comfy.model_detection
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...faithdiff_core.architecture import unet_sizes
from ...faithdiff_core.files.checks import check_finite, check_state
from ...faithdiff_core.lora import fit_lora
from ...faithdiff_core.unet_layers import SIZE_EMBEDDING_CHANNELS
from .host import is_oom, patcher_class
from .nano_vae import SDXL_MODEL_CHANNELS, NanoLatents

PREDICTION_MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Empty tensors by which files tell the host that they predict v or use EDM's noise levels (H comfy/supported_models.py,
SDXL.model_type)."""


@dataclass(frozen=True)
class WeightDtype:
    """A choice of the `weight_dtype` list. The names are those of the host's Load Diffusion Model."""

    dtype: torch.dtype | None
    fp8_matmul: bool = False


WEIGHT_DTYPES = {
    "default": WeightDtype(None),
    "fp8_e4m3fn": WeightDtype(torch.float8_e4m3fn),
    "fp8_e4m3fn_fast": WeightDtype(torch.float8_e4m3fn, fp8_matmul=True),
    "fp8_e5m2": WeightDtype(torch.float8_e5m2),
}


def load_unet(
    unet: dict[str, torch.Tensor], config: dict[str, Any], choice: WeightDtype, *, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the UNet's weights. Empties `unet` on the way, so that no second copy need live.

    Args:
        unet: LDM names without prefix.
        config: the file's `faithdiff.config`.
        choice: type to hold the weights in.
        disable_dynamic: for the host's own reloads.

    Raises:
        ValueError: not an SDXL-family UNet, tensors missing, of another shape (in quantised files the host's layers know) or
        not finite.
    """
    parameters = comfy.utils.calculate_parameters(unet)
    unet, _ = comfy.utils.convert_old_quants(unet, "", metadata={})
    try:
        model_config = _model_config(unet, config)
        quantised = model_config.quant_config is not None
        expected = _expected_state(model_config)
    except (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, AssertionError) as e:
        # The host's detection, on a file that lacks what it counts by, or sizes that no tensor can have.
        raise ValueError(
            f"expected a whole SDXL-family UNet, got one whose layers do not add up ({e!r:.120}); get the file again"
        ) from None
    check_finite(unet, "UNet")
    markers = {name: unet.pop(name) for name in PREDICTION_MARKERS if name in unet}
    check_state(expected, unet, "UNet", names_only=quantised)
    if quantised:
        _check_size(expected, unet)

    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    supported = list(model_config.supported_inference_dtypes)
    dtype = choice.dtype or _default_dtype(None if quantised else comfy.utils.weight_dtype(unet), parameters, supported)
    cast = mm.unet_manual_cast(None if quantised else dtype, load_device, supported)
    model_config.set_inference_dtype(dtype, cast)
    model_config.optimizations["fp8"] = choice.fp8_matmul

    try:
        model = model_config.get_model({**unet, **markers}, "")
        patcher = patcher_class(disable_dynamic=disable_dynamic)(model, load_device=load_device, offload_device=offload_device)
        if quantised:
            model.load_model_weights(unet, "", assign=patcher.is_dynamic())
            return patcher
    except Exception as e:  # the host trusts marks (of the noise's kind, of quantised layers) and raises what it likes
        if is_oom(e) or isinstance(e, MemoryError) or MAIN_MEMORY_SPENT in str(e):
            raise
        raise ValueError(
            f"expected a UNet whose marks and quantised layers make sense, got one that the host cannot build ({e!r:.120}); "
            "the file is damaged, get it again"
        ) from None
    if not patcher.is_dynamic():  # dynamic management reads from the mapped file and casts on the way to the device
        for name in list(unet):  # one at a time; a tensor whose type fits stays the file's own
            unet[name] = unet[name].to(device=offload_device, dtype=dtype)
    model.load_model_weights(unet, "", assign=True)
    return patcher


def add_lora(model: comfy.model_patcher.ModelPatcher, lora: dict[str, torch.Tensor]) -> str:
    """Puts a LoRA, in any tool's names, on the MODEL as the host's Load LoRA does at strength 1; says how much of it fits.

    Raises:
        ValueError: as `fit_lora`.
    """
    prefix = "diffusion_model."
    unet = {name.removeprefix(prefix): t for name, t in model.model.state_dict().items() if name.startswith(prefix)}
    fitted = fit_lora(lora, unet)
    patches = comfy.lora.load_lora(fitted.host_state(), comfy.lora.model_lora_keys_unet(model.model, {}))
    model.add_patches(patches)
    return f"LoRA: {fitted}"


def require_sdxl(model: comfy.model_patcher.ModelPatcher, what: str) -> comfy.model_base.SDXL:
    """The MODEL's network where it is of the SDXL family.

    Raises:
        ValueError: it is not; `what` names the input.
    """
    if not isinstance(model.model, comfy.model_base.SDXL):
        raise ValueError(
            f"expected an SDXL MODEL as {what}, got {type(model.model).__name__}; load an SDXL checkpoint or FaithDiff.bin"
        )
    return model.model


def model_channels(model: comfy.model_patcher.ModelPatcher) -> int:
    """Width of the UNet's first convolution."""
    return model.model.model_config.unet_config["model_channels"]


class _ShapeOperations(comfy.ops.disable_weight_init):
    """Layers that have their weights (on the meta device) from the start, however the host manages memory."""

    class Linear(comfy.ops.disable_weight_init.Linear):
        _load_from_state_dict = torch.nn.Linear._load_from_state_dict  # a loader of its own switches the host's lazy weights off


def _expected_state(model_config: Any) -> dict[str, torch.Tensor]:
    """Names and shapes of the UNet's weights."""
    config = {**model_config.unet_config, "dtype": torch.float32}
    return UNetModel(**config, device=torch.device("meta"), operations=_ShapeOperations).state_dict()


def _model_config(unet: dict[str, torch.Tensor], config: dict[str, Any]) -> Any:
    sizes = unet_sizes(unet, config)
    wide_enough = sizes.adm_channels is not None and sizes.adm_channels > SIZE_EMBEDDING_CHANNELS
    if not wide_enough or sizes.context_channels is None or sizes.in_channels != 4:
        raise ValueError(
            "expected the UNet of an SDXL-family net (4 latent channels, text context, size embedding), got "
            f"{sizes.in_channels} latent channels, context {sizes.context_channels}, size embedding {sizes.adm_channels}; "
            "FaithDiff is SDXL only, choose FaithDiff.bin or a FaithDiff .safetensors"
        )
    _require_few_blocks(unet)
    unet_config = comfy.model_detection.detect_unet_config(unet, "")
    _require_complete(unet_config)
    published = next((c for c in comfy.supported_models.models if c.matches(unet_config, unet)), comfy.supported_models.SDXL)
    if not issubclass(published, comfy.supported_models.SDXL):
        raise ValueError(
            f"expected the UNet of an SDXL-family net, got {published.__name__}; choose FaithDiff.bin or a FaithDiff .safetensors"
        )
    model_config = published(unet_config)
    if sizes.model_channels < SDXL_MODEL_CHANNELS:
        model_config.latent_format = NanoLatents()  # pyright: ignore[reportAttributeAccessIssue]  (an object, once made)
    model_config.unet_config["num_head_channels"] = sizes.num_head_channels
    quant_config: Any = comfy.utils.detect_layer_quantization(unet, "")
    model_config.quant_config = quant_config
    return model_config


MAX_VALUES_PER_BYTE = 2
"""Of a quantised file: 4-bit weights, the smallest that the host reads, have 2. Shapes beyond that are not believed."""
MAIN_MEMORY_SPENT = "DefaultCPUAllocator"
"""In torch's RuntimeError where main memory ends: no kind of its own says it."""


def _check_size(expected: dict[str, torch.Tensor], unet: dict[str, torch.Tensor]) -> None:
    """A quantised file's shapes are its format's own; what the host will make of them must still be of the file's size."""
    values, held_bytes = sum(t.numel() for t in expected.values()), sum(t.nbytes for t in unet.values())
    if values > MAX_VALUES_PER_BYTE * held_bytes:
        raise ValueError(f"expected a UNet of {values} values, got {held_bytes} bytes of it; get the file again")


def _require_few_blocks(unet: dict[str, torch.Tensor]) -> None:
    """The host's detection passes over all names once for each block."""
    if any(re.search(r"\.\d{3,}(\.|$)", name) for name in unet):
        raise ValueError("expected an SDXL-family UNet, got one of hundreds of blocks; the file is damaged, get it again")


def _require_complete(unet_config: dict[str, Any]) -> None:
    """A file that lacks whole blocks still describes a net, only a lopsided one; no published one is.

    Raises:
        ValueError: no middle, or levels that attend on the way down but not on the way up.
    """
    down, up = list(unet_config["transformer_depth"]), list(unet_config["transformer_depth_output"])
    levels = []
    for layers in unet_config["num_res_blocks"]:
        levels.append((any(down[:layers]), any(up[: layers + 1])))
        down, up = down[layers:], up[layers + 1 :]
    if unet_config["transformer_depth_middle"] == -2 or down or up or any(d != u for d, u in levels):
        raise ValueError(
            "expected a whole UNet, got one that lacks blocks in the middle or on one side; the file is damaged, get it again"
        )


def _default_dtype(stored: torch.dtype | None, parameters: int, supported: list[torch.dtype]) -> torch.dtype:
    """The host's choice, except where half-precision weights can stay as they are.

    They can where the host would hold them in fp32 and casting them at use computes in fp32 just the same. A flag such as
    --fp32-unet decides on devices that compute in half.
    """
    dtype = mm.unet_dtype(model_params=parameters, supported_dtypes=supported, weight_dtype=stored)
    if stored in (torch.float16, torch.bfloat16) and mm.unet_manual_cast(stored, mm.get_torch_device(), supported) == dtype:
        logging.debug("FaithDiff: UNet weights stay %s, computing in %s", stored, dtype)
        return stored
    return dtype
