"""ControlNets in tiles: each tile sees its part of the hint, the user's objects stay as they are."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management as mm
import comfy.ops
import comfy.utils
import pytest
import torch
from comfyui_faithdiff.faithdiff_core.geometry import Box, Size
from comfyui_faithdiff.nodes.tiles.control import HintPart, cut_control
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.sampling import align, noise_like, predictions, sample
from support.tiles import official_starts, tiled

IMAGE = tiny.image(104, 160)
HINT = tiny.image(104, 160, seed=40).movedim(-1, 1)
NEGATIVE = tiny.conditioning(2)
CONFIG = {
    k: v
    for k, v in tiny.UNET_CONFIG.items()
    if k not in ("out_channels", "transformer_depth_output", "use_temporal_attention", "use_temporal_resblock")
}


def made_up_controlnet():
    net = comfy.cldm.cldm.ControlNet(**CONFIG, hint_channels=3, operations=comfy.ops.manual_cast, device=torch.device("cpu"))
    net.load_state_dict(tiny.random_weights(net.state_dict(), 21))
    return comfy.controlnet.ControlNet(
        net.eval().requires_grad_(False), load_device=mm.get_torch_device(), manual_cast_dtype=None
    )


def made_up_control_lora():
    """All of it in the file: the UNet's own layers are taken from the MODEL by the host, these are changed."""
    net = comfy.cldm.cldm.ControlNet(**CONFIG, hint_channels=3, operations=comfy.ops.manual_cast, device=torch.device("cpu"))
    weights = tiny.random_weights(net.state_dict(), 22, scale=2.0)
    kept = {k: t for k, t in weights.items() if k.startswith(("input_hint_block", "zero_convs", "middle_block_out"))}
    return comfy.controlnet.ControlLora(kept)


class SmallAdapter(torch.nn.Module):
    """In the host's adapter class, for the tiny UNet: adds to its first features, before the alignment."""

    unshuffle_amount = 8

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3 * 64, tiny.WIDTH, 3, padding=1)

    def forward(self, hint):
        return {"input": [self.conv(torch.nn.functional.pixel_unshuffle(hint, 8))]}


def made_up_adapter():
    net = SmallAdapter()
    net.load_state_dict(tiny.random_weights(net.state_dict(), 23))
    return comfy.controlnet.T2IAdapter(net.eval().requires_grad_(False), 3, 8, "nearest-exact")


MAKERS = [made_up_controlnet, made_up_control_lora, made_up_adapter]


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


def with_control(prompt, control, hint=HINT, strength=0.7):
    control.set_cond_hint(hint, strength, (0.0, 1.0))
    return [[c, {**options, "control": control, "control_apply_to_uncond": True}] for c, options in prompt]


def predict(model, latent, positive):
    return predictions(model, noise_like(latent), 3.0, positive, NEGATIVE)[1]


@pytest.mark.parametrize("make", MAKERS)
def test_only_the_hint_of_a_tile_acts_in_it(aligned, make):
    """Another hint in a corner that only the first tile sees changes nothing outside of that tile."""
    model, latent = aligned
    other = HINT.clone()
    other[..., :32, :32] = 1.0 - other[..., :32, :32]  # 4 cells; the second tiles begin at cell 4
    first, second = (predict(tiled(model), latent, with_control(tiny.conditioning(1), make(), hint)) for hint in (HINT, other))
    assert_only_the_first_tile_changed(first, second)
    assert relative_difference(first, predict(tiled(model), latent, tiny.conditioning(1))) > CHANGED


def assert_only_the_first_tile_changed(first, second):
    """Seen in its first quarter, which no other tile covers, and nowhere behind it but for rounding: the calls are the same."""
    assert relative_difference(second[..., :4, :4], first[..., :4, :4]) > CHANGED
    for behind in ((..., slice(8, None), slice(None)), (..., slice(None), slice(8, None))):
        assert_close(second[behind], first[behind], NETWORK)


@pytest.mark.parametrize("make", MAKERS)
def test_tile_batches_with_control(aligned, make):
    model, latent = aligned
    positive = with_control(tiny.conditioning(1), make())
    one = sample(tiled(model, batch=1), latent, positive=positive, steps=1)
    many = sample(tiled(model, batch=7), latent, positive=positive, steps=1)
    assert_close(many, one, NETWORK)


@pytest.mark.parametrize("make", MAKERS)
def test_one_tile_with_control_is_untiled_bit_for_bit(aligned, make):
    model, latent = aligned
    results = [sample(m, latent, positive=with_control(tiny.conditioning(1), make())) for m in (tiled(model, 1024), model)]
    assert torch.equal(*results)


@pytest.mark.parametrize("make", MAKERS)
def test_the_users_control_is_not_changed(aligned, make):
    model, latent = aligned
    control = make()
    positive = with_control(tiny.conditioning(1), control)
    before = sample(model, latent, positive=positive)
    hint = control.cond_hint_original
    sample(tiled(model), latent, positive=positive)
    assert control.cond_hint_original is hint and control.cond_hint is None and torch.equal(hint, HINT)
    assert torch.equal(sample(model, latent, positive=positive), before)


def test_chained_controls_are_all_cut(aligned):
    model, latent = aligned
    first, second = made_up_controlnet(), made_up_adapter()
    first.set_cond_hint(HINT, 0.7, (0.0, 1.0))
    chain = with_control(tiny.conditioning(1), second.set_previous_controlnet(first))
    both = predict(tiled(model), latent, chain)
    for single in (first, made_up_adapter()):
        alone = predict(tiled(model), latent, with_control(tiny.conditioning(1), single))
        assert relative_difference(both, alone) > CHANGED
    other = HINT.clone()
    other[..., :32, :32] = 1.0 - other[..., :32, :32]
    first.set_cond_hint(other, 0.7, (0.0, 1.0))
    assert_only_the_first_tile_changed(both, predict(tiled(model), latent, chain))


def test_hints_of_another_size_are_stretched_as_the_host_does_and_then_cut():
    wide = torch.rand(1, 3, 60, 200, generator=torch.Generator().manual_seed(1))
    control = made_up_controlnet().set_cond_hint(wide)
    whole = comfy.utils.common_upscale(wide, 160, 104, "nearest-exact", "center")
    scaled = {}
    tiles = [Box(top, left, 8, 8) for top in official_starts(13, 8, 0.5) for left in official_starts(20, 8, 0.5)]
    cut = cut_control(control, [HintPart(0, box) for box in tiles], Size(13, 20), scaled)
    for row, (top, left, height, width) in zip(cut.cond_hint_original, tiles, strict=True):
        assert torch.equal(row, whole[0, :, top * 8 : (top + height) * 8, left * 8 : (left + width) * 8])
    assert len(scaled) == 1 and control.cond_hint_original is wide


def test_hints_of_a_batch_follow_its_images():
    hints = torch.rand(2, 3, 104, 160, generator=torch.Generator().manual_seed(1))
    control = made_up_controlnet().set_cond_hint(hints)
    cut = cut_control(control, [HintPart(image, Box(4, 4, 8, 8)) for image in range(3)], Size(13, 20), {})
    for row, image in zip(cut.cond_hint_original, (0, 1, 0), strict=True):
        assert torch.equal(row, hints[image, :, 32:96, 32:96])


def test_a_hint_on_an_area_is_cut_as_the_host_stretches_it(aligned):
    """The host stretches the whole hint over the area of an area prompt; a tile must get its part of that."""
    model, latent = aligned
    seen = []
    control = made_up_controlnet()
    forward = control.control_model.forward
    control.control_model.forward = lambda **kwargs: seen.append(kwargs["hint"]) or forward(**kwargs)
    area = (10, 12, 2, 5)  # height, width, top, left
    predict(tiled(model, batch=1), latent, with_control(tiny.conditioning(1, area=area), control))
    stretched = comfy.utils.common_upscale(HINT, 96, 80, "nearest-exact", "center")
    expected = []
    for top in official_starts(13, 8, 0.5):
        for left in official_starts(20, 8, 0.5):
            rows, columns = (max(top, 2), min(top + 8, 12)), (max(left, 5), min(left + 8, 17))
            if rows[0] < rows[1] and columns[0] < columns[1]:
                (y0, y1), (x0, x1) = [[8 * (i - start) for i in ends] for ends, start in ((rows, 2), (columns, 5))]
                expected.append(stretched[..., y0:y1, x0:x1])
    for hint in expected:
        assert any(s.shape[-2:] == hint.shape[-2:] and torch.equal(s[:1], hint) for s in seen)


def test_controls_of_other_packs_are_refused(aligned):
    model, latent = aligned

    class TheirControl(comfy.controlnet.ControlNet):
        pass

    ours = made_up_controlnet()
    theirs = TheirControl(ours.control_model, load_device=mm.get_torch_device())
    positive = with_control(tiny.conditioning(1), theirs)
    with pytest.raises(ValueError, match="ComfyUI's own for sampling in tiles, got TheirControl.*set tile_size to 0"):
        sample(tiled(model), latent, positive=positive)
    sample(tiled(model, 0), latent, positive=positive)
