"""What FaithDiff Load Photo and FaithDiff Load Folder give of a picture that was read."""

from __future__ import annotations

import comfy.model_management as mm
import torch

from ...faithdiff_core.photo.curves import read_profile
from ...faithdiff_core.photo.photo import Photo, to_unit
from ..seam.inputs import UNPAINTED_PX
from .bundle import FaithDiffPhoto


def given(photo: Photo) -> tuple[torch.Tensor, torch.Tensor, FaithDiffPhoto]:
    """IMAGE (1, H, W, 3), MASK (1, H, W), 64 x 64 px of 0 for an opaque picture, and PHOTO."""
    device = mm.intermediate_device()
    color_HWC = torch.from_numpy(to_unit(photo.color_HWC)).to(device)
    alpha_HW = None if photo.alpha_HW is None else torch.from_numpy(to_unit(photo.alpha_HW)).to(device)
    unpainted_px = (UNPAINTED_PX, UNPAINTED_PX)
    mask_HW = torch.zeros(unpainted_px, device=device) if alpha_HW is None else 1.0 - alpha_HW
    return color_HWC[None], mask_HW[None], FaithDiffPhoto(photo.source, alpha_HW)


def facts(photo: Photo) -> list[str]:
    """What the node shows: size, depth, colours, and what was not taken as it is."""
    height, width = photo.color_HWC.shape[:2]
    source = photo.source
    parts = [f"{width}x{height} px", f"{source.depth_bits} bit", source.container]
    if source.profile is not None:
        curves = read_profile(source.profile)
        parts.append("sRGB" if curves is not None and curves.is_srgb else "own colour profile")
    parts += [name for name, there in (("alpha", source.has_alpha), ("EXIF", source.exif), ("XMP", source.xmp)) if there]
    return [", ".join(parts), *(f"It {warning}." for warning in photo.warnings)]
