"""EfficientNet-Lite0's features on made-up weights: the network against torch's own layers, the distance, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close

from training.metrics import efficientnet_lite
from training.metrics.efficientnet_lite import FILE, HALVING, NORM_EPS, TAPS, EfficientNetLite0, read_efficientnet
from training.metrics.networks import NotComputedError, network_metric
from training.metrics.perceptual import EFFICIENTNET, open_perceptual

BLOCKS = ((1, 3, 16), (6, 3, 24), (6, 3, 24), (6, 5, 40), (6, 5, 40), (6, 3, 80), (6, 3, 80), (6, 3, 80), *((6, 5, 112),) * 3)
"""(expansion, kernel, channels) of the first blocks: the paper's table 1."""
State = dict[str, torch.Tensor]


def made_up() -> State:
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def layer(conv: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        state[f"{conv}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) / (inputs * kernel**2) ** 0.5
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{name}"] = 0.5 + torch.rand(outputs, generator=generator)

    layer("_conv_stem", "_bn0", 32, 3, 3)
    width = 32
    for number, (expansion, kernel, channels) in enumerate(BLOCKS):
        name, wide = f"_blocks.{number}.", width * expansion
        if expansion > 1:
            layer(f"{name}_expand_conv", f"{name}_bn0", wide, width, 1)
        layer(f"{name}_depthwise_conv", f"{name}_bn1", wide, 1, kernel)
        layer(f"{name}_project_conv", f"{name}_bn2", channels, wide, 1)
        width = channels
    return state


def plainly(state: State, image_BCHW: torch.Tensor) -> list[torch.Tensor]:
    """The same network, written out for sides that are multiples of 32."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        kernel = weight.shape[-1]
        first = (kernel - stride) // 2
        x = F.pad(x, (first, kernel - stride - first) * 2) if kernel > 1 else x
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)
        mean, variance, gain, bias = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, variance, gain, bias, eps=NORM_EPS)

    x = F.relu6(layer((127.5 * (image_BCHW + 1) - 127) / 128, "_conv_stem", "_bn0", 2))
    taps = []
    for number in range(len(BLOCKS)):
        name, before = f"_blocks.{number}.", x
        if f"{name}_expand_conv.weight" in state:
            x = F.relu6(layer(x, f"{name}_expand_conv", f"{name}_bn0"))
        x = F.relu6(layer(x, f"{name}_depthwise_conv", f"{name}_bn1", 2 if number in HALVING else 1))
        x = layer(x, f"{name}_project_conv", f"{name}_bn2")
        x = before + x if x.shape == before.shape else x
        if number in TAPS:
            taps.append(F.normalize(x, dim=1))
    return taps


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here."""
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "a_package_that_nobody_has")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(made_up(), tmp_path / FILE)
    return tmp_path


def test_features_are_those_of_the_network_written_out() -> None:
    for got, expected in zip(EfficientNetLite0(made_up())(pictures()), plainly(made_up(), pictures()), strict=True):
        assert_close(got, expected, NETWORK)


@pytest.mark.usefixtures("no_package")
def test_the_distance_is_zero_for_one_picture_and_has_a_gradient(weights: Path) -> None:
    distance = open_perceptual(weights, torch.device("cpu"))
    assert distance.name == EFFICIENTNET and distance.facts.startswith(f"{FILE}, sha256 ")
    truth = pictures()
    assert distance(truth, truth).item() == 0
    near, far = (distance(truth + shift * pictures().flip(0), truth).item() for shift in (0.05, 0.5))
    assert 0 < near < far
    picture = (0.9 * truth).requires_grad_()
    distance(picture, truth).backward()
    assert picture.grad is not None and picture.grad.abs().max() > 0


@pytest.mark.usefixtures("no_package")
def test_evaluate_has_it_under_its_own_name(weights: Path) -> None:
    score, note = network_metric("efficientnet_lite0", weights)
    image, reference = (pictures() + 1) / 2
    apart = score(image, reference)
    expected = open_perceptual(weights, torch.device("cpu"))(pictures()[:1], pictures()[1:]).item()
    assert apart == pytest.approx(expected, rel=ONE_MODULE * 10) and apart > CHANGED
    assert FILE in note


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:500])])
def test_without_weights_there_is_a_reason(weights: Path, spoil: Callable[[Path], object]) -> None:
    spoil(weights / FILE)
    with pytest.raises(ValueError, match=r"expected (weights for perceptual_weight|EfficientNet-Lite0's weights)"):
        open_perceptual(weights, torch.device("cpu"))
    with pytest.raises(NotComputedError, match=FILE):
        network_metric("efficientnet_lite0", weights)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="expected EfficientNet-Lite0's weights in"):
        read_efficientnet(tmp_path / FILE)
