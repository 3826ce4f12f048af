"""The pack's nodes (V3 schema) and the seam to the host."""

from comfy_api.latest import ComfyExtension, io

from .align_latent import FaithDiffAlignLatent
from .attribution import FaithDiffAttribution
from .color_fix import FaithDiffColorFix
from .compare import FaithDiffCompare
from .decode import FaithDiffDecode
from .encode_lq import FaithDiffEncodeLQ
from .folder.served import serve_folder_state
from .get_weights import FaithDiffGetWeights
from .load_folder import FaithDiffLoadFolder
from .load_model import FaithDiffLoadModel
from .load_nano_vae import FaithDiffLoadNanoVAE
from .load_photo import FaithDiffLoadPhoto
from .no_prompt import FaithDiffNoPrompt
from .photos.served import serve_own_photos
from .plan import FaithDiffPlan
from .preset import FaithDiffPreset
from .prompt import FaithDiffPrompt
from .report import FaithDiffReport
from .sampler import FaithDiffSampler
from .save_folder import FaithDiffSaveFolder
from .save_photo import FaithDiffSavePhoto
from .split_tiles import FaithDiffSplitTiles
from .tile_model import FaithDiffTileModel
from .tile_prompts import FaithDiffTilePrompts
from .upscale import FaithDiffUpscale
from .weights.places import make_folder
from .weights.routes import serve_weights

__all__ = ["FaithDiffExtension", "comfy_entrypoint"]


class FaithDiffExtension(ComfyExtension):
    async def on_load(self) -> None:
        serve_own_photos()
        serve_folder_state()
        make_folder()
        serve_weights()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            FaithDiffLoadModel,
            FaithDiffEncodeLQ,
            FaithDiffAlignLatent,
            FaithDiffSampler,
            FaithDiffTileModel,
            FaithDiffPlan,
            FaithDiffDecode,
            FaithDiffColorFix,
            FaithDiffReport,
            FaithDiffUpscale,
            FaithDiffPreset,
            FaithDiffPrompt,
            FaithDiffSplitTiles,
            FaithDiffTilePrompts,
            FaithDiffAttribution,
            FaithDiffLoadNanoVAE,
            FaithDiffNoPrompt,
            FaithDiffLoadPhoto,
            FaithDiffSavePhoto,
            FaithDiffLoadFolder,
            FaithDiffSaveFolder,
            FaithDiffCompare,
            FaithDiffGetWeights,
        ]


async def comfy_entrypoint() -> FaithDiffExtension:
    """The host asks a pack for its nodes by this name."""
    return FaithDiffExtension()
