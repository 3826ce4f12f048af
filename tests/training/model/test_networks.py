"""The networks: their sizes against the published ones, and how the composite computes."""

from __future__ import annotations

import pytest
import torch
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.trainer_models import inputs, tiny

from training.model.faithdiff import FaithDiffComposite, build_model
from training.model.networks import NETWORKS, build_vae, fits, unet_widths, vae_widths

# Counted on the official classes (diffusers' UNet config.json of SDXL and of Segmind-Vega).
UNET_PARAMETERS = {"sdxl": 2_567_463_684, "vega": 745_225_604}
ENCODER_PARAMETERS = 34_125_696
ALIGNMENT_PARAMETERS = {"spatial": 10_608_512, "pointwise": 8_967_552}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("network", ["sdxl", "vega"])
@pytest.mark.parametrize("mode", ["pointwise", "spatial"])
def test_published_sizes(network: str, mode: str) -> None:
    with torch.device("meta"):
        model = build_model(tiny(network=network, alignment_mode=mode))
    assert count(model.unet) == UNET_PARAMETERS[network]
    assert (count(model.lq_encoder), count(model.alignment)) == (ENCODER_PARAMETERS, ALIGNMENT_PARAMETERS[mode])


def test_every_network_is_told_by_its_weights() -> None:
    for network in NETWORKS:
        with torch.device("meta"):
            model = build_model(tiny(network=network))
            vae = build_vae(NETWORKS[network])
        widths = unet_widths(model.unet.state_dict()) | vae_widths(vae.state_dict(), "encoder.")
        assert [name for name, spec in NETWORKS.items() if fits(widths, spec)] == [network]


def test_starting_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = build_model(tiny()), build_model(tiny(alignment_mode="spatial"))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, again.unet.state_dict()[k]) for k, v in first.unet.state_dict().items())
    other = build_model(tiny(seed=1)).unet.conv_in.weight
    assert not torch.equal(first.unet.conv_in.weight, other)
    mine, encoders = (module.conv_in.weight.flatten()[:8] for module in (first.unet, first.lq_encoder))
    assert not torch.allclose(mine / mine[0], encoders / encoders[0]), "each part has a stream of its own"


def gradients(model: FaithDiffComposite) -> tuple[dict[str, torch.Tensor], int]:
    """Of the mean prediction, and how many bytes autograd kept for them."""
    kept_bytes = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept_bytes
        if not isinstance(tensor, torch.nn.Parameter):
            kept_bytes += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**inputs()).abs().mean()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept_bytes


@pytest.mark.parametrize("extra", [{}, {"lora_rank": 2}])
def test_checkpointing_keeps_less_and_changes_no_gradient(extra: dict) -> None:
    plain, plain_bytes = gradients(build_model(tiny(**extra)))
    model = build_model(tiny(gradient_checkpointing=True, **extra))
    checkpointed, bytes_ = gradients(model)
    assert checkpointed.keys() == plain.keys()
    largest = max(value.abs().max() for value in plain.values())
    for name, value in plain.items():
        assert (checkpointed[name] - value).abs().max() <= NETWORK * largest, name
    assert bytes_ < 0.6 * plain_bytes


def test_the_lq_encoder_is_checkpointed_a_resnet_at_a_time() -> None:
    def kept(**extra: object) -> int:
        model = build_model(tiny(**extra))
        model.unet.requires_grad_(False)
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (shapes.append(t.nbytes), t)[1], lambda t: t):
            model.encode_lq(inputs()["lq_BCHW"])
        return sum(shapes)

    assert kept(gradient_checkpointing=True) < 0.5 * kept()


def test_a_frozen_lq_encoder_runs_without_gradients() -> None:
    model = build_model(tiny())
    enabled = []
    model.lq_encoder.register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    model(**inputs())
    model.lq_encoder.requires_grad_(False)
    model(**inputs())
    assert enabled == [True, False]


@pytest.mark.parametrize("unet_dtype", ["fp32", "bf16"])
def test_size_conditioning_stays_fp32(unet_dtype: str) -> None:
    """Above 256 px bf16 knows no odd numbers; 2049 would be 2048."""
    model = build_model(tiny(unet_dtype=unet_dtype))
    seen = []
    model.unet.add_time_proj.register_forward_hook(lambda _module, given, made: seen.append((given[0], made)))
    given = inputs() | {"time_ids_B6": torch.tensor([[2049.0, 2051, 257, 1023, 511, 1025]] * 2)}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(**given).dtype == torch.float32
    ids, embedded = seen[0]
    assert torch.equal(ids, given["time_ids_B6"].flatten()) and embedded.dtype == torch.float32
    with pytest.raises(AssertionError, match="half precision"):
        model(**given | {"time_ids_B6": given["time_ids_B6"].bfloat16()})


def test_a_bf16_unet_predicts_nearly_the_same() -> None:
    with torch.no_grad():
        full, half = (build_model(tiny(unet_dtype=dtype)) for dtype in ("fp32", "bf16"))
        assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in half.alignment.parameters()} == {torch.float32}
        a, b = full(**inputs()), half(**inputs())
    assert b.dtype == torch.float32 and 0 < (a - b).abs().max() < 0.05 * a.abs().max()


def test_the_prompt_reaches_the_unet() -> None:
    spec = NETWORKS["tiny"]
    model = build_model(tiny())
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(2, 77, spec.context_width, generator=generator)
    pooled = torch.randn(2, spec.pooled_width, generator=generator)
    with torch.no_grad():
        without = model(**inputs())
        assert torch.equal(model(**inputs(), context_BNC=0 * context, pooled_BC=0 * pooled), without)
        assert relative_difference(model(**inputs(), context_BNC=context, pooled_BC=0 * pooled), without) > CHANGED
        assert relative_difference(model(**inputs(), context_BNC=0 * context, pooled_BC=pooled), without) > CHANGED


def test_last_features_are_the_vae_encoders_output() -> None:
    vae = build_vae(NETWORKS["tiny"]).eval()
    model = build_model(tiny(lq_features="last"))
    model.lq_encoder.load_state_dict(vae.encoder.state_dict())
    with torch.no_grad():
        features = model.encode_lq(inputs()["lq_BCHW"])
        assert_close(features, vae.encoder(inputs()["lq_BCHW"]), NETWORK)
    model(**inputs()).abs().mean().backward()
    for name in ("lq_encoder.conv_out", "lq_encoder.conv_norm_out", "alignment.lift"):
        assert model.get_submodule(name).weight.grad is not None, name


def test_no_alignment_layers() -> None:
    model = build_model(tiny(alignment_layers=0))
    assert not len(model.alignment.blocks)
    model(**inputs()).abs().mean().backward()
    assert model.alignment.proj_out.weight.grad is not None
