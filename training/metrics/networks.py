"""LPIPS, DISTS and EfficientNet-Lite0's features: networks on weight files that lie on this machine. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from faithdiff_core.files.checks import first_line
from training.common.tensor_files import file_digest
from training.metrics.efficientnet_lite import FILE as EFFICIENTNET_FILE
from training.metrics.efficientnet_lite import INSTALL, feature_distance, find_weights, read_efficientnet

PairScore = Callable[[torch.Tensor, torch.Tensor], float]
"""(picture, reference), both float32 (3, H, W) in [0, 1], to the value."""

WEIGHT_FILES = {
    "lpips": "alexnet-owt-7be5be79.pth",
    "lpips_vgg": "vgg16-397923af.pth",
    "dists": "vgg16-397923af.pth",
}
"""torchvision's own names of the ImageNet weights. The small layers on top of them come with torchmetrics."""


class NotComputedError(Exception):
    """Why a metric cannot be had here; the text stands in the report in place of numbers."""


def network_metric(name: str, weights: Path | None) -> tuple[PairScore, str]:
    """The function of the metric `name`, and what is known of the file it runs on, for the report.

    Runs on the GPU where there is one.

    Raises:
        NotComputedError: the file or a package is missing, or the file is another.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "efficientnet_lite0":
        return _efficientnet_metric(weights, device)
    path = weight_file(name, weights)
    state = _state(path)
    try:
        network = _network(name, path).to(device).eval()
    except ImportError as error:
        raise NotComputedError(f"needs torchmetrics and torchvision ({error}); install the `evaluate` extra") from error
    except (RuntimeError, KeyError) as error:
        raise NotComputedError(f"expected torchvision's weights in {path.name}, got others ({first_line(error)})") from error
    first = state["features.0.weight"]
    if not any(value.shape == first.shape and torch.equal(value.cpu(), first) for value in network.parameters()):
        raise NotComputedError(
            f"expected the network to hold the weights of {path.name}, got others, check torchmetrics' version"
        )

    @torch.inference_mode()
    def score(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
        pair = (image_CHW[None].to(device), reference_CHW[None].to(device))
        return (network(*pair) if name == "dists" else network(*pair, normalize=True)).item()

    return score, f"{path.name}, {_digest(path)}, on {device.type}"


def _efficientnet_metric(weights: Path | None, device: torch.device) -> tuple[PairScore, str]:
    path = find_weights(weights)
    if path is None:
        raise NotComputedError(f"needs {EFFICIENTNET_FILE}, do {INSTALL}, or name the folder that holds it with --weights")
    try:
        network = read_efficientnet(path).to(device)
    except ValueError as error:
        raise NotComputedError(str(error)) from error

    @torch.inference_mode()
    def score(image_CHW: torch.Tensor, reference_CHW: torch.Tensor) -> float:
        pair = (picture[None].to(device) * 2.0 - 1.0 for picture in (image_CHW, reference_CHW))
        return feature_distance(network, *pair).item()

    return score, f"{path.name}, {_digest(path)}, on {device.type}"


def weight_file(name: str, weights: Path | None) -> Path:
    """Where the backbone of `name` lies.

    Raises:
        NotComputedError: the file is not there; says which one was expected where.
    """
    wanted = WEIGHT_FILES[name]
    if weights is None:
        raise NotComputedError(f"needs {wanted}, name the folder that holds it with --weights")
    if not (weights / wanted).is_file():
        raise NotComputedError(f"expected {wanted} in {weights}, got no such file")
    return weights / wanted


def _state(path: Path) -> dict[str, torch.Tensor]:
    """The file read as nothing but tensors; torchvision reads it again, as whatever it is."""
    try:
        # Not walked through before (pickle_check): the published files are of 2017, and none could be had to try it on.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise NotComputedError(f"expected torchvision's weights in {path}, got {first_line(error)}; copy it again") from error
    if not isinstance(state, dict) or not isinstance(state.get("features.0.weight"), torch.Tensor):
        raise NotComputedError(f"expected torchvision's weights in {path}, got no features.0.weight; take the published file")
    return state


def _network(name: str, path: Path) -> torch.nn.Module:
    with _hub_holding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics passes arguments that torchvision calls deprecated
        if name == "dists":
            from torchmetrics.functional.image.dists import DISTSNetwork

            return DISTSNetwork()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type="vgg" if name == "lpips_vgg" else "alex").net


def lpips_network(path: Path) -> torch.nn.Module:
    """LPIPS (AlexNet, version 0.1) on the weight file `path`: two batches in [-1, 1] to (B, 1, 1, 1), with gradients.

    Raises:
        NotComputedError: a package is missing, or the file is another.
    """
    _state(path)
    try:
        return _network("lpips", path)
    except ImportError as error:
        raise NotComputedError(f"needs torchmetrics and torchvision ({error}); install the `evaluate` extra") from error
    except (RuntimeError, KeyError) as error:
        raise NotComputedError(f"expected torchvision's weights in {path.name}, got others ({first_line(error)})") from error


@contextlib.contextmanager
def _hub_holding(path: Path) -> Iterator[None]:
    """Inside, torch's hub is a folder with this one file, so that torchvision finds it and has nothing to download."""
    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "checkpoints"
        checkpoints.mkdir()
        try:
            os.symlink(path.resolve(), checkpoints / path.name)
        except OSError:  # Windows asks for a right that users rarely have
            shutil.copyfile(path, checkpoints / path.name)
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)


def _digest(path: Path) -> str:
    """The file's hash, and whether it is the published file: torchvision's names end with the hash's first eight digits."""
    digest, promised = file_digest(path), path.stem.rpartition("-")[2]
    text = f"sha256 {digest}"
    return text if digest.startswith(promised) else f"{text} (not the published file, whose hash begins {promised})"
