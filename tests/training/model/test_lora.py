"""LoRA in the UNet: a start that changes nothing, merging, and the host's names."""

from __future__ import annotations

import pytest
import torch
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.trainer_models import tiny

from training.model.faithdiff import FaithDiffComposite, build_model
from training.model.lora import base_unet, host_lora, lora_parameters, lora_state, merged_unet


def predict(model: FaithDiffComposite) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noisy, lq = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        return model(noisy, torch.tensor([900, 20]), torch.full((2, 6), 64.0), lq)


def open_lora(model: FaithDiffComposite, size: float = 0.1) -> None:
    """Random second factors in place of zeros."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in lora_parameters(model.unet).items():
        if ".lora_B." in name:
            parameter.data = size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("unet_dtype", ["fp32", "bf16"])
def test_the_start_is_the_base_bit_for_bit(unet_dtype: str) -> None:
    base, model = build_model(tiny(unet_dtype=unet_dtype)), build_model(tiny(unet_dtype=unet_dtype, lora_rank=4))
    assert torch.equal(predict(model), predict(base))
    factors = lora_parameters(model.unet)
    assert {p.dtype for p in factors.values()} == {torch.float32}
    assert {p.dtype for name, p in model.unet.named_parameters() if name not in factors} == {
        p.dtype for p in base.unet.parameters()
    }
    held = base_unet(model.unet.state_dict())
    assert held.keys() == base.unet.state_dict().keys()
    assert all(torch.equal(held[name], value) for name, value in base.unet.state_dict().items())
    open_lora(model)
    assert not torch.equal(predict(model), predict(base))


# Counted at SDXL's size; other public trainers have the same for these layers.
@pytest.mark.parametrize(
    ("rank", "parameters"),
    [(16, 48_671_360), pytest.param(32, 97_342_720, marks=pytest.mark.long)],
)
def test_sizes_at_sdxl(rank: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(tiny(network="sdxl", lora_rank=rank))
    assert sum(p.numel() for p in lora_parameters(model.unet).values()) == parameters


def test_merging_computes_the_same() -> None:
    model = build_model(tiny(lora_rank=4))
    open_lora(model)
    merged = build_model(tiny())
    before = predict(merged)
    merged.unet.load_state_dict(dict(merged_unet(model.unet.state_dict())))
    merged.lq_encoder.load_state_dict(model.lq_encoder.state_dict())
    assert_close(predict(merged), predict(model), NETWORK)
    assert relative_difference(predict(merged), before) > CHANGED


def test_merging_in_fp32_beside_a_bf16_base() -> None:
    model = build_model(tiny(lora_rank=4, unet_dtype="bf16"))
    open_lora(model, size=1e-4)
    state = model.unet.state_dict()
    merged = dict(merged_unet(state))
    base = base_unet(state)
    changed = [name for name in base if merged[name].dtype == torch.float32]
    # In bf16 such a change would vanish in most weights.
    assert changed and all(not torch.equal(merged[name], base[name].float()) for name in changed)
    assert all(name.endswith(".weight") for name in changed) and len(changed) == len(lora_state(state)) // 2


def test_host_names() -> None:
    model = build_model(tiny(lora_rank=4))
    lora = host_lora(model.unet.state_dict())
    layer = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"
    assert lora[f"{layer}.lora_down.weight"].shape == (4, 64) and lora[f"{layer}.lora_up.weight"].shape == (64, 4)
    assert lora[f"{layer}.alpha"] == 4.0
    assert lora["lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight"].shape == (4, 64, 3, 3)
    assert len(lora) == 3 * len(lora_parameters(model.unet)) // 2
