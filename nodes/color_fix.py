"""FaithDiff Color Fix: the degraded image's colours, size and alpha on the restored one."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from comfy_api.latest import io

from ..faithdiff_core.color_fix import METHODS, fix_colors
from ..faithdiff_core.geometry import Size, crop_to, padded_size_px
from ..faithdiff_core.photo.alpha import visible_colors
from .seam.inputs import FROM_A_VAE, checked
from .seam.types import RESTORE_CATEGORY, SEARCHED


class FaithDiffColorFix(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffColorFix",
            display_name="FaithDiff Color Fix",
            category=RESTORE_CATEGORY,
            description="Gives the restored image the colours, the exact size and the alpha of the image it was made from.",
            search_aliases=[*SEARCHED, "color match", "colour fix", "wavelet", "adain", "white balance", "faded"],
            inputs=[
                io.Image.Input("image", tooltip="The restored image, from FaithDiff Decode or VAE Decode."),
                io.Image.Input(
                    "reference",
                    tooltip="The degraded image at the target size, the same that FaithDiff Encode LQ Features was given.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="adain",
                    tooltip="adain matches each channel's mean and contrast (the release's default); wavelet takes all "
                    "coarse colour from the reference; lab matches lightness and tints; hsv takes hue and saturation of every "
                    "pixel; wavelet+adain is both; neutral takes a faded photo's cast away; none only crops and restores alpha.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The finished image, exactly of the reference's size.")],
        )

    @classmethod
    @checked
    def execute(cls, image: torch.Tensor, reference: torch.Tensor, method: str) -> io.NodeOutput:
        size, got = Size(*reference.shape[1:3]), Size(*image.shape[1:3])
        if got not in (size, padded_size_px(size)):
            raise ValueError(
                f"expected an image of {padded_size_px(size)} px as VAE Decode gives it for a reference of {size}, got "
                f"{got}; connect the image that was encoded as reference, and enlarge after this node"
            )
        if reference.shape[0] not in (1, image.shape[0]):
            raise ValueError(f"expected 1 reference or one for each of the {image.shape[0]} images, got {reference.shape[0]}")
        reference = reference.to(image).expand(image.shape[0], -1, -1, -1)
        result_BHWC = torch.empty_like(reference)
        result_BHWC[..., 3:] = reference[..., 3:]
        for i in range(image.shape[0]):  # one at a time: a batch of frames needs no more memory than a frame
            mm.throw_exception_if_processing_interrupted()
            for name, batch in (("image", image), ("reference", reference)):
                if not torch.isfinite(batch[i]).all():  # the colours of a single one would spread over the whole image
                    raise ValueError(f"expected finite numbers in {name}, got NaN or infinity in image {i + 1}; {FROM_A_VAE}")
            image_1CHW, reference_1CHW = (visible_colors(batch[i]).movedim(-1, 0)[None] for batch in (image, reference))
            result_BHWC[i : i + 1, ..., :3] = fix_colors(crop_to(image_1CHW, size), reference_1CHW, method).movedim(1, -1)
        return io.NodeOutput(result_BHWC)
