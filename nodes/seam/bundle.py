"""FAITHDIFF_MODEL and FAITHDIFF_FEATURES: what runs between our nodes.

The LQ encoder and the alignment module are two patchers of the host, because the encoder runs once before sampling and must not
hold memory during it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ...faithdiff_core.alignment import AlignmentModule
from ...faithdiff_core.architecture import alignment_sizes, lq_encoder_sizes
from ...faithdiff_core.files.checkpoint import FaithDiffParts, alignment_state_for, split_state_dict
from ...faithdiff_core.files.checks import check_finite, check_state
from ...faithdiff_core.files.metadata import FaithDiffMetadata
from ...faithdiff_core.geometry import LATENT_CELL_PX, Size, latent_size
from ...faithdiff_core.lq_encoder import LQEncoder
from . import host
from .weights_file import read_weights

FULL_TYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class FaithDiffModel:
    """LQ encoder and alignment module on the host's memory management, and what the file says of them."""

    encoder: comfy.model_patcher.ModelPatcher
    alignment: comfy.model_patcher.ModelPatcher
    metadata: FaithDiffMetadata

    def get_models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """The host asks a bundle for its patchers by this name."""
        return [self.encoder, self.alignment]


@dataclass(frozen=True)
class FaithDiffFeatures:
    """LQ features of a batch of images, with the model that made them.

    Attributes:
        features_BCHW: (B, feature_channels, H/8, W/8), on the host's intermediate device.
        size_px: size of the images as given, before padding to whole latent cells.
        model: whose alignment module understands these features.
        lq_BHWC: the images as given, in [0, 1], with alpha where they have it; not a copy.
    """

    features_BCHW: torch.Tensor
    size_px: Size
    model: FaithDiffModel
    lq_BHWC: torch.Tensor


def check_size(features: FaithDiffFeatures, samples: torch.Tensor) -> None:
    """Raises ValueError where a latent is not (B, 4, H, W) of the features' size and batch."""
    if getattr(samples, "is_nested", False) or samples.ndim != 4 or samples.shape[1] != 4:
        got = "several latents in one" if getattr(samples, "is_nested", False) else f"shape {tuple(samples.shape)}"
        raise ValueError(
            f"expected an SDXL image latent (batch, 4, height, width), got {got}; use the latent from FaithDiff "
            "Encode LQ Features"
        )
    cells, got = latent_size(features.size_px), Size(*samples.shape[-2:])
    if got != cells:
        raise ValueError(
            f"expected a latent of {cells} cells for features of a {features.size_px} px image, got {got}; use the latent "
            "from the same FaithDiff Encode LQ Features, or one of its size"
        )
    images, latents = features.features_BCHW.shape[0], samples.shape[0]
    if images not in (1, latents):
        raise ValueError(
            f"expected features of {'1 image' if latents == 1 else f'1 or {latents} images'} for a batch of {latents} "
            f"latents, got {images}; encode the same batch of images that the latent holds"
        )


def build_model(parts: FaithDiffParts, path: str) -> FaithDiffModel:
    """The two modules of a file that was taken apart; `path` is what the host reads again for further devices.

    Raises:
        ValueError: weights missing, of another shape, or not finite.
    """
    encoder_sizes = lq_encoder_sizes(parts.lq_encoder, parts.metadata.config)
    alignment_in = alignment_sizes(parts.alignment, parts.metadata.config).feature_channels
    got = (encoder_sizes.in_channels, encoder_sizes.downscale, encoder_sizes.block_out_channels[-1])
    if got != (3, LATENT_CELL_PX, alignment_in):
        raise ValueError(
            f"expected an LQ encoder from 3 channels to {alignment_in} at 1/{LATENT_CELL_PX}, as the alignment module "
            f"takes them, got {got[0]} to {got[2]} at 1/{got[1]}; the parts are of different models, get the file again"
        )
    encoder = _build_encoder(parts)
    encoder.cached_patcher_init = (load_encoder, (path,))
    alignment = _build_alignment(parts)
    alignment.cached_patcher_init = (load_alignment, (path,))
    return FaithDiffModel(encoder=encoder, alignment=alignment, metadata=parts.metadata)


def load_encoder(path: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The host calls this to have the encoder once more, for another device or without dynamic memory."""
    return _build_encoder(split_state_dict(*read_weights(path)), disable_dynamic=disable_dynamic)


def load_alignment(path: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The same for the alignment module."""
    return _build_alignment(split_state_dict(*read_weights(path)), disable_dynamic=disable_dynamic)


def _build_encoder(parts: FaithDiffParts, *, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    sizes = lq_encoder_sizes(parts.lq_encoder, parts.metadata.config)
    attention = host.vae_attention()
    return build_patcher(
        lambda operations, **factory: LQEncoder(sizes, operations=operations, attention=attention, **factory),
        parts.lq_encoder,
        "LQ encoder",
        (mm.vae_device(), mm.vae_offload_device()),
        disable_dynamic,
    )


def _build_alignment(parts: FaithDiffParts, *, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    sizes = alignment_sizes(parts.alignment, parts.metadata.config)
    mode = parts.metadata.align_attention
    folded = mode == "pointwise"
    return build_patcher(
        lambda operations, **factory: AlignmentModule(
            sizes, mode=mode, folded=folded, operations=operations, attention=host.unet_attention, **factory
        ),
        alignment_state_for(parts.alignment, mode, folded=folded),
        "alignment module",
        (mm.get_torch_device(), mm.unet_offload_device()),
        disable_dynamic,
    )


def build_patcher(
    make: Callable[..., torch.nn.Module],
    state: Mapping[str, torch.Tensor],
    what: str,
    devices: tuple[torch.device, torch.device],
    disable_dynamic: bool,
) -> comfy.model_patcher.ModelPatcher:
    """A network of the host's layers with these weights.

    Args:
        make: builds it of a namespace of layers, on a device.
        state: its weights, as the file has them.
        what: its name in a message.
        devices: where it computes, and where it waits.
        disable_dynamic: for the host's own reloads.

    Raises:
        ValueError: weights missing, of another shape, or not finite.
    """
    # torch's own layers tell the shapes: the host's have no weights before loading when it manages memory dynamically.
    try:
        expected = make(torch.nn, device="meta").state_dict()
    except RuntimeError as e:  # more values than a tensor can have
        raise ValueError(f"expected usable sizes in the {what}, got others ({e!r:.120}); get the file again") from None
    check_state(expected, state, what)
    check_finite(state, what)
    module = make(host.OPERATIONS, device="meta")
    # The file's own tensors, so that nothing is copied. Never fp8: these two are 2 % of the weights, and fidelity is in them.
    module.load_state_dict({k: t if t.dtype in FULL_TYPES else t.float() for k, t in state.items()}, strict=True, assign=True)
    module.requires_grad_(False).eval()
    host.archive_dtypes(module)
    return host.patcher_class(disable_dynamic=disable_dynamic)(module, load_device=devices[0], offload_device=devices[1])
