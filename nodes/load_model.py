"""Load FaithDiff Model: a FaithDiff file to an SDXL MODEL and the modules that make it restore."""

from __future__ import annotations

import logging
import os

import comfy.model_patcher
from comfy_api.latest import io

from ..faithdiff_core.files.checkpoint import FaithDiffParts
from ..faithdiff_core.files.shards import whole_parts
from ..faithdiff_core.lora import with_own_lora
from .seam import folders
from .seam.bundle import FaithDiffModel, build_model
from .seam.inputs import checked
from .seam.types import RESTORE_CATEGORY, SEARCHED, FaithDiffModelType
from .seam.unet_loader import WEIGHT_DTYPES, add_lora, load_unet, model_channels, require_sdxl
from .seam.weights_file import read_weights


class FaithDiffLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffLoadModel",
            display_name="Load FaithDiff Model",
            category=RESTORE_CATEGORY,
            description="Loads FaithDiff weights: the released FaithDiff.bin, or one of our .safetensors files (full, or an "
            "adapter for an SDXL base).",
            search_aliases=[*SEARCHED, "image restoration", "load checkpoint"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folders.model_names(),
                    tooltip="A file in models/faithdiff or models/diffusion_models. FaithDiff.bin brings its own "
                    "fine-tuned SDXL UNet, so no checkpoint is needed for the UNet; VAE and text encoders come from any SDXL "
                    "checkpoint.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    advanced=True,
                    tooltip="Type to hold the UNet in. fp8 halves its memory at a small loss; LQ encoder and alignment "
                    "module are never held in fp8.",
                ),
                io.Model.Input(
                    "base_model",
                    optional=True,
                    tooltip="An SDXL MODEL, for adapter files that carry no UNet. Not used when the file has one.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The SDXL UNet. Connect it to FaithDiff Align Latent; LoRA and other patches may go between."
                ),
                FaithDiffModelType.Output(
                    display_name="faithdiff", tooltip="LQ encoder and alignment module, for FaithDiff Encode LQ Features."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None = None) -> bool | str:
        """In place of the host's own look at the list, which does not say where weights come from."""
        return True if model_name is None or model_name in folders.model_names() else folders.absent(model_name)

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None, **kwargs) -> tuple:
        return folders.fingerprint(model_name) if model_name else ()  # linked: what gives the name tells of its changes

    @classmethod
    @checked
    def execute(
        cls, model_name: str, weight_dtype: str, base_model: comfy.model_patcher.ModelPatcher | None = None
    ) -> io.NodeOutput:
        return io.NodeOutput(*load(folders.weights_path(model_name), weight_dtype, base_model))


def load(
    path: str, weight_dtype: str = "default", base_model: comfy.model_patcher.ModelPatcher | None = None
) -> tuple[comfy.model_patcher.ModelPatcher, FaithDiffModel]:
    """MODEL and FAITHDIFF_MODEL of a file.

    Raises:
        ValueError: anything wrong with the file or the base model; the message names the file and what to do.
    """
    name = os.path.basename(path)
    state, header = read_weights(path)
    try:
        parts = with_own_lora(whole_parts(name, state, header))
        del state  # the UNet's tensors must not be held twice while they are cast
        bundle = build_model(parts, path)
        if parts.unet is None:
            model, note = _base(base_model, parts)
        else:
            if base_model is not None:
                logging.info("FaithDiff: %s brings its own UNet; base_model is not used", name)
            model = load_unet(parts.unet, dict(parts.metadata.config), WEIGHT_DTYPES[weight_dtype])
            model.cached_patcher_init = (reload_unet, (path, weight_dtype))
            note = parts.note
        width = bundle.alignment.model.sizes.model_channels
        if model_channels(model) != width:
            raise ValueError(
                f"expected a UNet of width {width}, which the alignment module was made for, got {model_channels(model)}"
            )
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None
    if note:
        logging.info("FaithDiff: %s: %s", name, note)
    return model, bundle


def reload_unet(path: str, weight_dtype: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The host calls this to have the UNet once more, for another device or without dynamic memory."""
    parts = with_own_lora(whole_parts(os.path.basename(path), *read_weights(path)))
    assert parts.unet is not None, "registered for files with a UNet only"
    return load_unet(parts.unet, dict(parts.metadata.config), WEIGHT_DTYPES[weight_dtype], disable_dynamic=disable_dynamic)


def _base(
    base_model: comfy.model_patcher.ModelPatcher | None, parts: FaithDiffParts
) -> tuple[comfy.model_patcher.ModelPatcher, str]:
    """The MODEL for an adapter, with the LoRA on it that may be in the same file, and what to say of that."""
    wanted = parts.metadata.base_model
    if base_model is None:
        named = f" ({wanted})" if wanted else ""
        raise ValueError(
            "expected a base_model for this adapter file, which carries no UNet, got none; connect the MODEL of an SDXL "
            f"checkpoint{named} to base_model, or choose a full file such as FaithDiff.bin"
        )
    require_sdxl(base_model, "base_model")
    model = base_model.clone()
    return model, add_lora(model, parts.lora) if parts.lora else ""
