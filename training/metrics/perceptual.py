"""A perceptual distance to train with: LPIPS where its weights lie on this machine, else EfficientNet-Lite0's features."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.common.tensor_files import file_digest
from training.metrics.efficientnet_lite import FILE, INSTALL, feature_distance, find_weights, read_efficientnet
from training.metrics.networks import WEIGHT_FILES, NotComputedError, lpips_network

LPIPS, EFFICIENTNET = "lpips", "efficientnet-lite0 features"


class PerceptualDistance:
    """One number of two pictures, with a gradient. `name` says which distance, `facts` on which file."""

    def __init__(self, name: str, network: nn.Module, facts: str) -> None:
        self.name = name
        self.facts = facts
        self.network: Any = network

    def __call__(self, image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
        """Mean over the batch, (). Pictures float32 in [-1, 1]; the first may leave that range, as it does in training."""
        if self.name == LPIPS:
            return self.network(image_BCHW, reference_BCHW).mean()
        return feature_distance(self.network, image_BCHW, reference_BCHW).mean()

    def without_content(self) -> PerceptualDistance:
        """A copy on the meta device, for the estimate of memory."""
        return PerceptualDistance(self.name, copy.deepcopy(self.network).to("meta"), self.facts)


def open_perceptual(folder: Path | None, device: torch.device) -> PerceptualDistance:
    """LPIPS (AlexNet) where `folder` holds its weights; else EfficientNet-Lite0's features, from `folder` or the package.

    Raises:
        ValueError: there are neither, or the file is damaged; `folder` is none.
    """
    if folder is not None and not folder.is_dir():
        raise ValueError(f"expected a folder for --perceptual, got {folder}, which is none; check the path")
    lpips = folder / WEIGHT_FILES[LPIPS] if folder is not None else None
    if lpips is not None and lpips.is_file():
        try:
            network = lpips_network(lpips)
        except NotComputedError as error:
            raise ValueError(f"{error} (for perceptual_weight)") from None
        return PerceptualDistance(LPIPS, network.to(device).eval().requires_grad_(False), _facts(lpips))
    path = find_weights(folder)
    if path is None:
        raise ValueError(
            f"expected weights for perceptual_weight, got none; do {INSTALL}, name a folder that holds "
            f" {WEIGHT_FILES[LPIPS]} or {FILE} with --perceptual, or --set perceptual_weight=0"
        )
    return PerceptualDistance(EFFICIENTNET, read_efficientnet(path).to(device), _facts(path))


def _facts(path: Path) -> str:
    return f"{path.name}, sha256 {file_digest(path)}"
