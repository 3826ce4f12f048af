"""FaithDiff Encode LQ Features: the degraded image, at the target size, to features and a latent to start from."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import torch
from comfy_api.latest import io

from ..faithdiff_core.geometry import Size, latent_size, padded_size_px
from .seam.bundle import FaithDiffFeatures, FaithDiffModel
from .seam.encode import CPU_BYTES_PER_PX, DEVICE_BYTES_PER_PX, ImageEncoder, padded_image
from .seam.host import vae_has_room
from .seam.inputs import check_vae, checked
from .seam.types import RESTORE_CATEGORY, SEARCHED, FaithDiffFeaturesType, FaithDiffModelType

PROGRESS_PER_IMAGE = 1000


class FaithDiffEncodeLQ(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffEncodeLQ",
            display_name="FaithDiff Encode LQ Features",
            category=RESTORE_CATEGORY,
            description="Reads a degraded image into FaithDiff features. Enlarge the image to the size you want first; "
            "any size will do.",
            search_aliases=[*SEARCHED, "lq encoder"],
            inputs=[
                FaithDiffModelType.Input("faithdiff", tooltip="From Load FaithDiff Model."),
                io.Image.Input(
                    "image",
                    tooltip="The degraded image, already at the target size (enlarge it with Lanczos or an upscale "
                    "model). Alpha is left out; FaithDiff Color Fix puts it back.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="SDXL VAE. With it the latent output is the image itself, which the released weights start "
                    "from; without, it is empty.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=16384,
                    step=64,
                    advanced=True,
                    tooltip="Side of a tile in pixels; 0 encodes the whole image while it fits in memory, otherwise in tiles. "
                    "The features are the same; smaller tiles need less memory and take longer.",
                ),
            ],
            outputs=[
                FaithDiffFeaturesType.Output(display_name="features", tooltip="For FaithDiff Align Latent and FaithDiff Decode."),
                io.Latent.Output(
                    tooltip="The image as latent (or an empty one of the right size without a VAE), for FaithDiff Align Latent."
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, faithdiff: FaithDiffModel, image: torch.Tensor, tile_size: int, vae: comfy.sd.VAE | None = None
    ) -> io.NodeOutput:
        if vae is not None:
            check_vae(vae)
        size_px = Size(*image.shape[1:3])
        features = FaithDiffFeatures(encode(faithdiff, image, tile_size), size_px, faithdiff, image)
        return io.NodeOutput(features, {"samples": _start_latents(vae, image)})


def encode(faithdiff: FaithDiffModel, image_BHWC: torch.Tensor, tile_size: int) -> torch.Tensor:
    """LQ features (B, feature_channels, H/8, W/8) on the host's intermediate device of an IMAGE in [0, 1].

    One image at a time: a batch takes the memory of one image and of its features.
    """
    images = image_BHWC.shape[0]
    encoder = ImageEncoder(faithdiff.encoder, padded_size_px(Size(*image_BHWC.shape[1:3])), tile_size)
    bar = comfy.utils.ProgressBar(images * PROGRESS_PER_IMAGE)
    features_BCHW: torch.Tensor | None = None
    for i in range(images):

        def progress(done_frac: float, first: int = i) -> None:
            mm.throw_exception_if_processing_interrupted()
            bar.update_absolute(int((first + done_frac) * PROGRESS_PER_IMAGE))

        features_1CHW = encoder.encode(padded_image(image_BHWC, i), progress)
        features_BCHW = features_1CHW if images == 1 else _put(features_BCHW, i, features_1CHW, images)
    bar.update_absolute(images * PROGRESS_PER_IMAGE)
    assert features_BCHW is not None, "there is at least one image"
    return features_BCHW


def _put(features_BCHW: torch.Tensor | None, i: int, features_1CHW: torch.Tensor, images: int) -> torch.Tensor:
    """Image i's features in the room for all."""
    if features_BCHW is None:
        features_BCHW = features_1CHW.new_empty((images, *features_1CHW.shape[1:]))
    if features_1CHW.dtype == torch.float32:
        features_BCHW = features_BCHW.float()  # an image that overflowed in half precision among others that did not
    features_BCHW[i : i + 1] = features_1CHW
    return features_BCHW


def _start_latents(vae: comfy.sd.VAE | None, image_BHWC: torch.Tensor) -> torch.Tensor:
    if vae is None:
        cells = latent_size(Size(*image_BHWC.shape[1:3]))
        return torch.zeros((image_BHWC.shape[0], 4, *cells), device=mm.intermediate_device())
    return torch.cat([_start_latent(vae, padded_image(image_BHWC, i).movedim(1, -1)) for i in range(image_BHWC.shape[0])])


def _start_latent(vae: comfy.sd.VAE, image_1HWC: torch.Tensor) -> torch.Tensor:
    """The host's latent; in its own tiles where the image cannot fit."""
    _, height, width, _ = image_1HWC.shape
    needed_bytes = vae.memory_used_encode((1, 3, height, width), vae.vae_dtype)
    whole = vae_has_room(vae, needed_bytes, CPU_BYTES_PER_PX / DEVICE_BYTES_PER_PX, latent_size(Size(height, width)))
    return vae.encode(image_1HWC) if whole else vae.encode_tiled(image_1HWC)
