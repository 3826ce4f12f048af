"""How near the demo's pictures are to the photo that its input was made from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from PIL import Image

from .paths import ROOT

INPUT_END, TRUTH_END = "_lq.png", "_hq.png"
"""Of the names of a photo and of its truth, as `demo/` has them."""


def beside_truth(photo: Path, restored: Image.Image) -> list[str]:
    """Lines with PSNR and SSIM of the enlarged photo and of the restored one; none where no truth of this size lies beside."""
    truth_path = photo.with_name(photo.name.removesuffix(INPUT_END) + TRUTH_END)
    if not photo.name.endswith(INPUT_END) or not truth_path.is_file():
        return []
    with Image.open(truth_path) as truth, Image.open(photo) as before:
        if truth.size != restored.size:
            return []
        enlarged = before.convert("RGB").resize(truth.size, Image.Resampling.LANCZOS)
        pictures = {"enlarged": enlarged, "restored": restored.convert("RGB")}
        figures = {name: _figures(picture, truth.convert("RGB")) for name, picture in pictures.items()}
    return [f"{name} {psnr_db:.2f} dB, SSIM {ssim:.3f}" for name, (psnr_db, ssim) in figures.items()]


def _figures(picture: Image.Image, truth: Image.Image) -> tuple[float, float]:
    """PSNR in dB and SSIM, as `python -m training evaluate` computes psnr_rgb and ssim_rgb."""
    sys.path.append(str(ROOT))  # no ComfyUI in this process, whose `nodes` the pack's would hide
    import numpy as np
    import torch

    ssim = importlib.import_module("faithdiff_core.fidelity.ssim")
    image_CHW, truth_CHW = (
        torch.from_numpy(np.array(each)).movedim(-1, 0).to(torch.float32).div(255.0) for each in (picture, truth)
    )
    similarity = ssim.ssim(image_CHW, truth_CHW)
    assert similarity is not None, "the demo's photos are larger than SSIM's window"
    return ssim.psnr_db(image_CHW, truth_CHW), similarity
