"""What the optimisers hold, that fused and ordinary steps agree, that 8-bit states survive a file and tiny updates bf16."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from training.config.schema import TrainConfig
from training.model.faithdiff import FaithDiffComposite, build_model
from training.optim.optimisers import FusedBackward, Groups, make_optimiser, only_train, trainable
from training.optim.states import load_by_name, state_by_name
from training.tasks.diffusion import trained_groups


def config_of(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"recipe": "test", "stage": "joint", "network": "tiny", "steps": 4, "batch_size": 1, "lr": 1e-3}
    return TrainConfig(**settings | changes)


def linear_groups(dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, Groups]:
    """A small net with values enough (4096) for 8-bit moments, in two groups."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64)).to(dtype)
    named = dict(net.named_parameters())
    first = {name: value for name, value in named.items() if name.startswith("0.")}
    return net, [("first", 0.1, first), ("rest", 1.0, {name: value for name, value in named.items() if name not in first})]


def backward(net: torch.nn.Module, step: int) -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
    (net(x.to(next(net.parameters()).dtype)).float().square().mean() * 100).backward()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def plain(value: torch.Tensor) -> torch.Tensor:
    """The numbers that an 8-bit state stands for."""
    return value.dequantize() if hasattr(value, "codes") else value


@pytest.fixture(scope="module")
def model() -> FaithDiffComposite:
    return build_model(config_of())


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"stage": "prior"}, {"unet": 1.0}),
        ({"stage": "align"}, {"alignment": 1.0}),
        ({"encoder_lr_ratio": 0.1, "unet_lr_ratio": 0.5}, {"lq_encoder": 0.1, "alignment": 1.0, "unet": 0.5}),
        ({"trains": "unet,alignment"}, {"alignment": 1.0, "unet": 1.0}),
    ],
)
def test_an_optimiser_holds_what_trains_and_nothing_else(
    model: FaithDiffComposite, settings: dict[str, Any], parts: dict[str, float]
) -> None:
    config = config_of(**settings)
    groups = trained_groups(model, config)
    only_train(model, groups)
    optimiser = make_optimiser(groups, config)
    assert {group["name"]: group["lr_scale"] for group in optimiser.param_groups} == parts
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    assert held == {id(p) for part in parts for p in getattr(model, part).parameters()}


@pytest.mark.parametrize("optimiser", ["adamw", "adamw8bit"])
def test_fused_backward_without_clipping_equals_the_ordinary_step_bit_for_bit(optimiser: str) -> None:
    dtype = torch.bfloat16 if optimiser == "adamw8bit" else torch.float32
    config = config_of(optimiser=optimiser, clip_norm=0.0, weight_decay=0.1)
    net, groups = linear_groups(dtype)
    fused_net, fused_groups = linear_groups(dtype)
    ordinary, fused = make_optimiser(groups, config), FusedBackward(fused_groups, config)
    for step in range(4):
        for held in (ordinary, fused):
            for group in held.param_groups:
                group["lr"] = config.lr * group["lr_scale"] * (step + 1)
        backward(net, step)
        backward(fused_net, step)
        assert all(p.grad is None for p in fused_net.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad.float() for p in net.parameters() if p.grad is not None])
        torch.testing.assert_close(fused.norm(), norm, rtol=1e-3, atol=0.0)
        ordinary.step()
        ordinary.zero_grad()
        fused.step()
        fused.zero_grad()
    for a, b in zip(net.parameters(), fused_net.parameters(), strict=True):
        assert torch.equal(a, b)
        for name, value in ordinary.state[a].items():
            assert torch.equal(plain(value), plain(fused.inner.state[b][name])), name


def test_fused_clipping_never_exceeds_the_whole_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(clip_norm=0.5)
    net, groups = linear_groups()
    fused = FusedBackward(groups, config)
    squares: list[float] = []
    real_step = fused.inner.step

    def watched() -> None:
        (parameter,) = fused.inner.param_groups[0]["params"]
        squares.append(parameter.grad.square().sum().item())
        real_step()

    monkeypatch.setattr(fused.inner, "step", watched)
    backward(net, 0)
    assert len(squares) == 4
    assert fused.norm() > 5
    assert 0 < sum(squares) ** 0.5 <= 0.5 + 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_8_bit_state_survives_a_file_and_goes_on_alike(dtype: torch.dtype) -> None:
    pytest.importorskip("torchao")
    config = config_of(optimiser="adamw8bit")
    net, groups = linear_groups(dtype)
    optimiser = make_optimiser(groups, config)
    for step in range(2):
        backward(net, step)
        optimiser.step()
        optimiser.zero_grad()
    weight, bias = (optimiser.state[p]["exp_avg_sq"] for p in list(net.parameters())[:2])
    assert weight.codes.dtype == torch.uint8
    assert bias.dtype == torch.float32
    twin, twin_groups = linear_groups(dtype)
    twin.load_state_dict(net.state_dict())
    resumed = make_optimiser(twin_groups, config)
    load_by_name(resumed, through_a_file(state_by_name(optimiser, trainable(groups), keep=True)), trainable(twin_groups))
    torch.rand(5)  # whatever else draws numbers
    for module, held in ((net, optimiser), (twin, resumed)):
        backward(module, 2)
        held.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
        for name, value in optimiser.state[a].items():
            assert torch.equal(plain(value), plain(resumed.state[b][name])), name


def test_fused_state_goes_on_alike_by_name() -> None:
    config = config_of()
    net, groups = linear_groups()
    fused = FusedBackward(groups, config)
    backward(net, 0)
    state = through_a_file(state_by_name(fused, trainable(groups), keep=True))
    twin, twin_groups = linear_groups()
    twin.load_state_dict(net.state_dict())
    resumed = FusedBackward(twin_groups, config)
    load_by_name(resumed, state, trainable(twin_groups))
    backward(net, 1)
    backward(twin, 1)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tiny_updates_of_bf16_weights_survive_on_average() -> None:
    """Steps of 1e-4 on weights of 1, whose bf16 neighbours are 4e-3 to 8e-3 away: rounding to the nearest would lose all."""
    pytest.importorskip("torchao")
    weight = torch.nn.Parameter(torch.ones(64, 256, dtype=torch.bfloat16))
    optimiser = make_optimiser([("unet", 1.0, {"w": weight})], config_of(optimiser="adamw8bit", lr=1e-4, weight_decay=0.0))
    nearest = torch.ones(64, 256, dtype=torch.bfloat16)
    for _ in range(20):
        weight.grad = torch.ones_like(weight)  # AdamW then moves each value by lr
        optimiser.step()
        nearest -= 1e-4
    assert torch.equal(nearest, torch.ones_like(nearest))
    moved = 1.0 - weight.float().mean().item()
    assert moved == pytest.approx(20 * 1e-4, rel=0.15)  # 16384 values: the standard error is 1.4 %


def test_plain_adamw_refuses_bf16_weights_that_train() -> None:
    _, groups = linear_groups(torch.bfloat16)
    with pytest.raises(ValueError, match="do --set optimiser=adamw8bit"):
        make_optimiser(groups, config_of())


def test_a_missing_torchao_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "training.optim.adamw8bit", None)
    _, groups = linear_groups()
    with pytest.raises(ValueError, match="pip install torchao"):
        make_optimiser(groups, config_of(optimiser="adamw8bit"))
