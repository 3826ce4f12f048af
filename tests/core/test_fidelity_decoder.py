"""The fidelity decoder: tiles give the whole picture, fidelity 0 gives the decoded one, and only a sound file is taken."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.files import channels_in_header, header_of, put_together, take_apart
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.network import FidelityDecoder, start_at_zero
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.tiles import DecoderTiling, correct_in_tiles
from comfyui_faithdiff.faithdiff_core.files.checkpoint import FIDELITY_DECODER_PREFIX, split_state_dict
from comfyui_faithdiff.faithdiff_core.files.storage import write_safetensors
from safetensors.torch import load_file
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference

HEADER = header_of(tiny.DECODER, licence="MIT", training={"steps": 3})


@pytest.fixture(scope="module")
def decoder():
    net = FidelityDecoder(tiny.DECODER, operations=torch.nn)
    net.load_state_dict(tiny.decoder_state())
    return net.requires_grad_(False).eval()


def given(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A decoded picture and the LQ one in [0, 1], and features."""
    g = torch.Generator().manual_seed(seed)
    decoded, lq = (torch.rand(1, 3, height, width, generator=g) for _ in range(2))
    return decoded, lq, torch.randn(1, tiny.DECODER.feature_channels, height // 8, width // 8, generator=g)


def tiled(tile_px: int, progress=lambda done_frac: None) -> DecoderTiling:
    return DecoderTiling(tile_px=tile_px, device=torch.device("cpu"), dtype=torch.float32, progress=progress)


def whole(decoder, picture, fidelity=1.0):
    """By the network's own forward, which works on [-1, 1]."""
    decoded, lq, features = picture
    return decoder(decoded * 2 - 1, lq * 2 - 1, features, fidelity) / 2 + 0.5


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 72), (104, 56), (16, 304)])
@pytest.mark.parametrize("tile_px", [8, 24, 40, 4096])
def test_tiles_give_the_whole_picture(decoder, height, width, tile_px):
    picture = given(height, width, seed=width)
    expected = whole(decoder, picture)
    assert relative_difference(expected, picture[0]) > CHANGED
    assert_close(correct_in_tiles(decoder, *picture, 1.0, tiled(tile_px)), expected, NETWORK)


def test_a_margin_that_is_too_small_is_seen(decoder, monkeypatch):
    """So the margin is needed: the comparison above can fail."""
    picture = given(40, 72)
    monkeypatch.setattr(FidelityDecoderSizes, "reach_px", 8)
    assert relative_difference(correct_in_tiles(decoder, *picture, 1.0, tiled(24)), whole(decoder, picture)) > CHANGED


@pytest.mark.parametrize("tile_px", [24, 4096])
def test_fidelity_0_is_the_decoded_picture_bit_for_bit(decoder, tile_px):
    picture = given(40, 72)
    for none in (0.0, torch.zeros(1, 1, 40, 72)):
        assert torch.equal(correct_in_tiles(decoder, *picture, none, tiled(tile_px)), picture[0])
    assert torch.equal(decoder(*picture, 0.0), picture[0])


@pytest.mark.parametrize("tile_px", [24, 4096])
def test_fidelity_may_differ_from_pixel_to_pixel(decoder, tile_px):
    picture = given(40, 72)
    decoded, full = picture[0], whole(decoder, picture)
    share = torch.rand(1, 1, 40, 72, generator=torch.Generator().manual_seed(1))
    share[..., :20] = 0.0
    result = correct_in_tiles(decoder, *picture, share, tiled(tile_px))
    assert torch.equal(result[..., :20], decoded[..., :20])
    assert_close(result, decoded + share * (full - decoded), NETWORK)
    assert_close(correct_in_tiles(decoder, *picture, 0.5, tiled(tile_px)), (decoded + full) / 2, NETWORK)


def test_untrained_is_the_decoded_picture():
    net = FidelityDecoder(tiny.DECODER, operations=torch.nn).requires_grad_(False)
    picture = given(40, 72)
    assert relative_difference(whole(net, picture), picture[0]) > CHANGED
    start_at_zero(net)
    assert torch.equal(correct_in_tiles(net, *picture, 1.0, tiled(24)), picture[0])


def test_every_input_has_a_say(decoder):
    picture, others = given(40, 72), given(40, 72, seed=1)
    base = decoder.corrections(*picture)
    for i in range(3):
        changed = [others[i] if i == j else part for j, part in enumerate(picture)]
        for ours, was in zip(decoder.corrections(*changed), base, strict=True):
            assert relative_difference(ours, was) > CHANGED


@pytest.mark.parametrize("sizes", [tiny.DECODER, replace(tiny.DECODER, widths=(4, 4, 4), blocks=(2, 2, 6))])
@pytest.mark.parametrize("name", ["decoded", "lq", "features"])
def test_nothing_looks_further_than_the_reach(sizes, name):
    """A column is changed: what differs lies within the reach, and nearly as far as that."""
    net = FidelityDecoder(sizes, operations=torch.nn).requires_grad_(False)
    net.load_state_dict(tiny.decoder_state(sizes))
    picture = dict(zip(("decoded", "lq", "features"), (part.double() for part in given(16, 320)), strict=True))
    px = 8 if name == "features" else 1
    column = 167 // px  # the last px of a cell: a 3x3 convolution reaches from its cell into the next
    net.double()
    before = torch.cat(net.corrections(*picture.values()), 1)
    picture[name][..., column] += 1.0
    after = torch.cat(net.corrections(*picture.values()), 1)
    differ = (after != before).any(0).any(0).any(0).nonzero().flatten()
    far_px = max(160 - int(differ.min()), int(differ.max()) - 167)  # beyond the cell that holds the column
    nearly_px = 0 if name == "features" else sizes.reach_px - 24  # which enter in the middle
    assert nearly_px < far_px <= sizes.reach_px


def test_reach_of_the_released_sizes():
    """The first and the last convolution 2 px each, 4 blocks of 2 px and 4 of 4 px, 6 of 8 px: 76 px, and whole cells."""
    assert FidelityDecoderSizes().reach_px == 80


def test_what_is_not_finite_is_told(decoder):
    decoded, lq, features = given(40, 72)
    decoded[0, 0, 30, 60] = float("nan")
    with pytest.raises(FloatingPointError):
        correct_in_tiles(decoder, decoded, lq, features, 1.0, tiled(24))


def test_progress_is_told_and_may_stop(decoder):
    seen: list[float] = []
    correct_in_tiles(decoder, *given(40, 72), 1.0, tiled(24, seen.append))
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == 1.0 and len(seen) == 2 * 3 + 1

    def stop(done_frac: float) -> None:
        if done_frac > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        correct_in_tiles(decoder, *given(40, 72), 1.0, tiled(24, stop))


def test_a_file_comes_back(tmp_path):
    path = tiny.write_decoder(tmp_path / "a_fidelity.safetensors")
    weights, sizes = take_apart(load_file(path), HEADER)
    expected = tiny.decoder_state()
    assert sizes == tiny.DECODER and channels_in_header(path) == tiny.DECODER.feature_channels
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in expected)
    assert take_apart(load_file(path), None)[1] == tiny.DECODER  # sizes are the weights' own
    assert json.loads(HEADER["faithdiff.training"]) == {"steps": 3} and HEADER["faithdiff.license"] == "MIT"


def _without(name):
    return lambda state: state.pop(FIDELITY_DECODER_PREFIX + name)


def _put(name, value):
    return lambda state: state.update({FIDELITY_DECODER_PREFIX + name: value})


DAMAGED = {
    "without a layer": (_without("conv_out.bias"), r"1 missing \(conv_out.bias\)"),
    "without the first": (_without("conv_in.weight"), "without a usable conv_in.weight"),
    "without features": (_without("feature_in.weight"), "without a usable feature_in.weight"),
    "without a level": (lambda state: [state.pop(n) for n in [*state] if "down_blocks.1." in n], "without a usable level 1"),
    "a level too many": (_put("down_blocks.3.0.expand.weight", torch.zeros(8)), "downsamplers.2.weight"),
    "wrong shape": (_put("up_blocks.0.0.mix.weight", torch.zeros(3)), r"1 of another shape \(up_blocks.0.0.mix.weight \(3,\)"),
    "first of one axis": (_put("feature_in.weight", torch.zeros(3)), "weight of the right shape"),
    "a scalar": (_put("conv_in.weight", torch.tensor(1.0)), "weight of the right shape"),
    "no channels": (_put("conv_in.weight", torch.zeros(0, 24, 3, 3)), "with channels on every level"),
    "NaN": (_put("down_blocks.2.0.join.weight", torch.full((12, 12, 1, 1), float("nan"))), "NaN or infinity in 1 tensors"),
    "infinity": (_put("conv_in.bias", torch.full((8,), float("inf"))), "NaN or infinity in 1 tensors"),
    "a layer too many": (_put("new.weight", torch.zeros(3)), r"1 unexpected \(new.weight\)"),
    "another model's": (lambda state: state.update({"vae.x": torch.zeros(1)}), "got one with 1 other tensors"),
    "huge": (_put("conv_in.weight", torch.zeros(2**60, 0)), "usable sizes in the fidelity decoder, got others"),
    "wider than a file": (_put("downsamplers.0.weight", torch.zeros(2**40, 0)), "usable sizes in the fidelity decoder"),
    "empty": (lambda state: state.clear(), "without any of its weights"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line(kind):
    change, wanted = DAMAGED[kind]
    state = put_together(tiny.decoder_state())
    change(state)
    with pytest.raises(ValueError, match=rf"^expected [^\n]*{wanted}[^\n]*; [^\n]+$"):
        take_apart(state, {})


CONTRADICTIONS = [
    ("widths", [8, 8, 8]),
    ("blocks", [1]),
    ("feature_channels", 128),
    ("feature_channels", None),
    ("blocks", "1, 2, 1"),
]


@pytest.mark.parametrize(("name", "value"), CONTRADICTIONS)
def test_a_config_that_contradicts_the_weights_is_damage(name, value):
    header = {**HEADER, "faithdiff.config": json.dumps({"fidelity_decoder": {name: value}})}
    with pytest.raises(
        ValueError, match=rf"^expected fidelity_decoder\.{name} = .*, got .* from the weights; the file is damaged"
    ):
        take_apart(put_together(tiny.decoder_state()), header)


def test_a_newer_format_is_told_of():
    with pytest.raises(ValueError, match="needs a newer ComfyUI-FaithDiff"):
        take_apart(put_together(tiny.decoder_state()), {**HEADER, "faithdiff.format": "2"})


def test_channels_of_other_files(tmp_path):
    write_safetensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    write_safetensors(tmp_path / "flat.safetensors", {FIDELITY_DECODER_PREFIX + "feature_in.weight": torch.zeros(3)}, {})
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    torch.save(put_together(tiny.decoder_state()), tmp_path / "pickle.bin")
    for name in ("other.safetensors", "flat.safetensors", "page.safetensors", "pickle.bin"):
        with pytest.raises(ValueError, match="^expected [^\n]*, got [^\n]*; [^\n]*get the file again$"):
            channels_in_header(tmp_path / name)
    with pytest.raises(OSError, match="gone"):
        channels_in_header(tmp_path / "gone.safetensors")


def test_as_a_model_it_is_sent_to_the_right_node():
    with pytest.raises(
        ValueError, match="got a fidelity decoder, which FaithDiff Decode takes as its decoder; choose FaithDiff.bin"
    ):
        split_state_dict(put_together(tiny.decoder_state()), HEADER)
