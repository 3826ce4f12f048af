"""FaithDiff Decode: the latent to a picture, with what the photo already has put back."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..faithdiff_core.geometry import Size, crop_to, pad_to_latent_cells, padded_size_px
from .decoding.correct import Decoded, PictureCorrector
from .decoding.plain import decode
from .decoding.weights import AUTO, NONE, choices, decoder_for, fingerprint
from .seam.bundle import FaithDiffFeatures, check_size
from .seam.encode import padded_image
from .seam.inputs import FROM_A_VAE, check_vae, checked, painted
from .seam.types import RESTORE_CATEGORY, SEARCHED, FaithDiffFeaturesType

PROGRESS_PER_IMAGE = 1000


class FaithDiffDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffDecode",
            display_name="FaithDiff Decode",
            category=RESTORE_CATEGORY,
            description="Turns the restored latent into a picture of the encoded image's size, and puts back what that image "
            "already has: thin strokes and fine texture, which a latent cannot hold.",
            search_aliases=[*SEARCHED, "vae decode", "fidelity", "text", "fine detail"],
            inputs=[
                io.Latent.Input("samples", tooltip="The restored latent, from FaithDiff Sampler or any other."),
                io.Vae.Input("vae", tooltip="The SDXL VAE, the same as for FaithDiff Encode LQ Features."),
                FaithDiffFeaturesType.Input("features", tooltip="From FaithDiff Encode LQ Features."),
                io.Float.Input(
                    "fidelity",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of what the degraded image already has is put back: 1 is all that the decoder finds, 0 is "
                    "plain VAE Decode. It needs a fidelity decoder for the weights; so far the nano model alone has one.",
                ),
                io.Combo.Input(
                    "decoder",
                    options=choices(),
                    default=AUTO,
                    advanced=True,
                    tooltip="The fidelity decoder: auto takes the first that fits the features, none is plain VAE Decode. Files "
                    "lie in models/faithdiff; their names end in fidelity.safetensors.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Fidelity over the picture: white as set above, black is plain VAE Decode. Load Image's mask "
                    "counts once something is painted.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The picture, exactly of the encoded image's size, for FaithDiff Color Fix.")],
        )

    @classmethod
    def fingerprint_inputs(cls, decoder: str | None = None, **_inputs: object) -> tuple:
        return fingerprint(decoder or AUTO)

    @classmethod
    @checked
    def execute(
        cls,
        samples: dict,
        vae: comfy.sd.VAE | None,
        features: FaithDiffFeatures,
        fidelity: float,
        decoder: str,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if vae is None:
            raise ValueError("expected a VAE, got none: the checkpoint holds no VAE; load one with Load VAE")
        check_vae(vae)
        latents_BCHW: torch.Tensor = samples["samples"]
        check_size(features, latents_BCHW)
        if not torch.isfinite(latents_BCHW).all():
            raise ValueError(f"expected a latent of finite numbers, got NaN or infinity; {FROM_A_VAE}")
        if not 0.0 <= fidelity <= 1.0:
            raise ValueError(f"expected a fidelity from 0 to 1, got {fidelity}; set it to one")
        shares = fidelity_maps(fidelity, painted(mask), latents_BCHW.shape[0])
        acts = any(bool(share_11HW.any()) for share_11HW in shares)
        patcher = decoder_for(decoder if acts else NONE, features.features_BCHW.shape[1])
        return io.NodeOutput(pictures(vae, latents_BCHW, features, shares, patcher))


def fidelity_maps(fidelity: float, mask: torch.Tensor | None, images: int) -> list[torch.Tensor]:
    """Fidelity for all images, or for each: (1, 1, 1, 1), or of the mask's size (1, 1, H, W).

    Raises:
        ValueError: several masks, but not one for each image.
    """
    if mask is None:
        return [torch.full((1, 1, 1, 1), fidelity)]
    masks_B1HW = mask.reshape((-1, 1, *mask.shape[-2:]))
    if masks_B1HW.shape[0] not in (1, images):
        raise ValueError(f"expected 1 mask or one for each of the {images} images, got {masks_B1HW.shape[0]}; give as many")
    return [fidelity * mask_1HW.float().clamp(0.0, 1.0)[None] for mask_1HW in masks_B1HW]


def pictures(
    vae: comfy.sd.VAE,
    latents_BCHW: torch.Tensor,
    features: FaithDiffFeatures,
    shares: list[torch.Tensor],
    patcher: comfy.model_patcher.ModelPatcher | None,
) -> torch.Tensor:
    """An IMAGE (B, H, W, 3) in [0, 1] of the features' size; one picture at a time, so that a batch takes the memory of one.

    Args:
        vae: the host's.
        latents_BCHW: finite, of the features' size.
        features: of one image, which serves any number of latents, or of one for each.
        shares: of `fidelity_maps`.
        patcher: of the fidelity decoder; None for plain VAE Decode.
    """
    images, size_px = latents_BCHW.shape[0], features.size_px
    corrector = None if patcher is None else PictureCorrector(patcher, padded_size_px(size_px))
    bar = comfy.utils.ProgressBar(images * PROGRESS_PER_IMAGE)
    result_BHWC: torch.Tensor | None = None
    for i in range(images):

        def progress(done_frac: float, first: int = i) -> None:
            mm.throw_exception_if_processing_interrupted()
            bar.update_absolute(int((first + done_frac) * PROGRESS_PER_IMAGE))

        progress(0.0)
        picture_1CHW = decode(vae, latents_BCHW[i : i + 1])
        share_11HW = shares[i % len(shares)]
        if corrector is not None and bool(share_11HW.any()):
            given = _decoded(picture_1CHW, features, i % features.features_BCHW.shape[0], share_11HW)
            picture_1CHW = corrector.correct(given, progress).clamp(0.0, 1.0).to(picture_1CHW.dtype)
        if result_BHWC is None:
            result_BHWC = picture_1CHW.new_empty((images, *size_px, 3))
        result_BHWC[i] = crop_to(picture_1CHW, size_px)[0].movedim(0, -1)
    bar.update_absolute(images * PROGRESS_PER_IMAGE)
    assert result_BHWC is not None, "there is at least one latent"
    return result_BHWC


def _decoded(picture_1CHW: torch.Tensor, features: FaithDiffFeatures, i: int, share_11HW: torch.Tensor) -> Decoded:
    """The picture with image i of the features."""
    return Decoded(
        decoded_1CHW=picture_1CHW,
        lq_1CHW=padded_image(features.lq_BHWC, i).to(picture_1CHW.device, torch.float32),
        features_1CHW=features.features_BCHW[i : i + 1],
        fidelity=_over(features.size_px, share_11HW),
    )


def _over(size_px: Size, share_11HW: torch.Tensor) -> torch.Tensor | float:
    """The fidelity of every pixel of the padded picture, or one for all; a mask drawn at another size is stretched."""
    if share_11HW.shape[-2:] == (1, 1):
        return float(share_11HW)
    if share_11HW.shape[-2:] != tuple(size_px):
        share_11HW = F.interpolate(share_11HW, size=tuple(size_px), mode="bilinear")
    return pad_to_latent_cells(share_11HW)
