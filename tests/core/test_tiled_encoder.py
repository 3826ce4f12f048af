"""The LQ encoder in tiles gives the features of the whole image."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core import attention
from comfyui_faithdiff.faithdiff_core.architecture import LQEncoderSizes
from comfyui_faithdiff.faithdiff_core.geometry import Size
from comfyui_faithdiff.faithdiff_core.lq_encoder import LQEncoder
from comfyui_faithdiff.faithdiff_core.tiled_encoder import attention as tiled_encoder_attention
from comfyui_faithdiff.faithdiff_core.tiled_encoder.encode import MARGIN_PX, EncoderTiling, encode_tiled, to_network_range
from comfyui_faithdiff.faithdiff_core.tiled_encoder.norm import Moments
from comfyui_faithdiff.faithdiff_core.tiled_encoder.steps import Down, Region, encoder_steps
from support.compare import NETWORK, ONE_MODULE, assert_close, relative_difference

CPU = torch.device("cpu")

# (height, width) in cells of 8 px: odd on every level, shorter than a tile, one tile wide, one cell more than a tile, and strips.
SIZES = [(1, 1), (2, 25), (25, 2), (9, 17), (16, 16), (17, 33), (33, 17), (1, 40), (8, 9), (15, 7), (24, 31), (19, 8)]


def random_encoder(sizes: LQEncoderSizes) -> LQEncoder:
    """Weights scaled by fan-in; norms and biases far from 1 and 0, so that each of them counts."""
    encoder = LQEncoder(sizes, operations=torch.nn).requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    for name, p in encoder.named_parameters():
        value = torch.randn(p.shape, generator=g)
        p.copy_(value / p[0].numel() ** 0.5 if p.ndim > 1 else 0.3 * value + float("norm" in name and name.endswith("weight")))
    return encoder


@pytest.fixture(scope="module")
def encoder():
    """All four levels, two blocks each and widths that change, as the released encoder has them."""
    return random_encoder(LQEncoderSizes(block_out_channels=(8, 16, 24, 24), norm_groups=4))


def image(height_lat: int, width_lat: int) -> torch.Tensor:
    """Noise on a gradient, so that tiles differ in their statistics."""
    g = torch.Generator().manual_seed(height_lat * 100 + width_lat)
    gradient = torch.linspace(0, 0.6, 8 * width_lat) + torch.linspace(0, 0.2, 8 * height_lat)[:, None]
    return gradient + 0.2 * torch.rand((1, 3, 8 * height_lat, 8 * width_lat), generator=g)


def in_tiles(encoder, rgb_1CHW, tile_px=64, keep_bytes=0, dtype=torch.float32, progress=lambda done_frac: None):
    tiling = EncoderTiling(tile_px=tile_px, keep_bytes=keep_bytes, device=CPU, dtype=dtype, keep_device=CPU, progress=progress)
    return encode_tiled(encoder, rgb_1CHW, tiling)


def whole(encoder, rgb_1CHW):
    return encoder(to_network_range(rgb_1CHW))


@pytest.mark.parametrize("size_lat", SIZES)
@pytest.mark.parametrize(("tile_px", "keep_bytes"), [(64, 0), (72, 10**5), (128, 2**30)])
def test_tiled_is_whole(encoder, size_lat, tile_px, keep_bytes):
    """Whatever the tile and whatever is kept: nothing, some levels, everything."""
    rgb = image(*size_lat)
    before = rgb.clone()
    assert_close(in_tiles(encoder, rgb, tile_px, keep_bytes), whole(encoder, rgb), NETWORK)
    assert torch.equal(rgb, before)


def test_levels_that_differ_in_width_and_depth():
    """Widths that rise up to the last level, where the features' room is not that of the level before; blocks of one layer."""
    encoder = random_encoder(LQEncoderSizes(block_out_channels=(8, 16, 24, 40), layers_per_block=1, norm_groups=4))
    rgb = image(19, 23)
    assert_close(in_tiles(encoder, rgb), whole(encoder, rgb), NETWORK)


def test_encoder_of_released_size():
    encoder = random_encoder(LQEncoderSizes())
    rgb = image(9, 15)
    assert_close(in_tiles(encoder, rgb, 64, 2**30), whole(encoder, rgb), NETWORK)


def test_tiles_by_themselves_would_differ(encoder):
    """What the margin and the whole image's statistics are for: without them the same comparison fails by far."""
    rgb = image(16, 16)
    naive = torch.cat([torch.cat([whole(encoder, part) for part in row.split(64, 3)], 3) for row in rgb.split(64, 2)], 2)
    assert relative_difference(naive, whole(encoder, rgb)) > 1000 * NETWORK


def test_margin(encoder):
    """The steps up to the last level, where activations are always kept, reach as far as MARGIN_PX says."""
    steps = [step for step in encoder_steps(encoder) if step.level < 3 or isinstance(step, Down)]
    sizes = tuple(Size(800 >> level, 800 >> level) for level in range(4))
    region = Region(40, 40, 48, 48)
    for step in reversed(steps):
        region = step.needs(region, sizes)
    assert region.bottom - region.top == 64 + MARGIN_PX and (320 - region.top, region.bottom - 384) == (29, 36)


def test_progress_ends_at_one_and_may_stop(encoder):
    seen = []
    in_tiles(encoder, image(20, 20), progress=seen.append)
    assert seen == sorted(seen) and seen[0] == 0.0 and 0.97 < seen[-1] <= 1.0 and len(seen) > 100

    def stop(done_frac: float) -> None:
        if done_frac > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_tiles(encoder, image(20, 20), progress=stop)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stop_at_once(encoder, bad):
    rgb, seen = image(20, 20), []
    rgb[0, 0, 3, 150] = bad
    with pytest.raises(FloatingPointError):
        in_tiles(encoder, rgb, progress=seen.append)
    assert seen[-1] < 0.05


def test_attention_in_chunks_is_the_same(monkeypatch):
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn((1, 50, 16), generator=g) for _ in range(3))
    at_once = attention.torch_attention(q, k, v, 1)
    monkeypatch.setattr(attention, "MAX_SCORE_BYTES", 7 * 50 * 4)
    assert attention.queries_at_once(k) == 7
    for function in (attention.torch_attention, attention.matmul_attention):
        queries = []

        def counted(q_BNC, k_BNC, v_BNC, num_heads, function=function, queries=queries):
            queries.append(q_BNC.shape[1])
            return function(q_BNC, k_BNC, v_BNC, num_heads)

        assert_close(attention.attend_in_chunks(counted, q, k, v), at_once, ONE_MODULE)
        assert queries == [7] * 7 + [1]


def test_attention_over_the_whole_image_in_chunks(encoder, monkeypatch):
    rgb = image(20, 21)
    reference = whole(encoder, rgb)
    monkeypatch.setattr(attention, "MAX_SCORE_BYTES", 11 * 420 * 4)
    assert_close(in_tiles(encoder, rgb), reference, NETWORK)
    assert_close(whole(encoder, rgb), reference, NETWORK)


@pytest.mark.parametrize("side_lat", [1, 15, 16, 17, 20, 28, 29, 41, 64, 101])
def test_windows_cover_a_side_and_their_weights_sum_to_one(monkeypatch, side_lat):
    monkeypatch.setattr(tiled_encoder_attention, "WINDOW_CELLS", 16)
    monkeypatch.setattr(tiled_encoder_attention, "OVERLAP_CELLS", 4)
    starts, total = tiled_encoder_attention.window_starts(side_lat), torch.zeros(side_lat)
    for start, weights in zip(starts, tiled_encoder_attention.blend_weights(side_lat), strict=True):
        assert (weights >= 0).all() and (weights[1:] - weights[:-1]).abs().max() < 0.5 if side_lat > 16 else True
        total[start : start + 16] += weights
    assert_close(total, torch.ones(side_lat), ONE_MODULE)
    assert starts[-1] == max(0, side_lat - 16)
    assert all(b - a <= 12 for a, b in zip(starts, starts[1:], strict=False))


def in_windows(monkeypatch, encoder, rgb, window_lat):
    with monkeypatch.context() as m:
        m.setattr(tiled_encoder_attention, "MAX_FULL_POSITIONS", 0)
        m.setattr(tiled_encoder_attention, "WINDOW_CELLS", window_lat)
        m.setattr(tiled_encoder_attention, "OVERLAP_CELLS", window_lat // 4)
        return in_tiles(encoder, rgb, 256, 2**30)


def test_one_window_is_the_whole(encoder, monkeypatch):
    rgb = image(19, 24)
    assert_close(in_windows(monkeypatch, encoder, rgb, 24), whole(encoder, rgb), NETWORK)


def windowed_attention_by_hand(encoder, x_1CHW, window, overlap):
    """The same windows by the module itself, with all sums held at once."""
    module = encoder.mid_block.attentions[0]
    x_normed = module.group_norm(x_1CHW)
    added = torch.zeros_like(x_1CHW)
    rows, columns = (
        list(zip(tiled_encoder_attention.window_starts(s), tiled_encoder_attention.blend_weights(s), strict=True))
        for s in x_1CHW.shape[-2:]
    )
    for top, row_weight in rows:
        for left, column_weight in columns:
            box = (..., slice(top, top + window), slice(left, left + window))
            tokens = x_normed[box].flatten(2).transpose(1, 2)
            out = module.to_out[0](module.attention(module.to_q(tokens), module.to_k(tokens), module.to_v(tokens), 1))
            shape = x_normed[box].shape
            added[box] += out.transpose(1, 2).reshape(shape) * row_weight[:, None] * column_weight
    return x_1CHW + added


def test_windows_are_blended_in_place(encoder, monkeypatch):
    """Rows are written while later windows still have to read: compared with the same sum out of place."""
    rgb = image(37, 45)
    ours = in_windows(monkeypatch, encoder, rgb, 16)
    monkeypatch.setattr(tiled_encoder_attention, "WINDOW_CELLS", 16)
    monkeypatch.setattr(tiled_encoder_attention, "OVERLAP_CELLS", 4)
    h = encoder.conv_in(to_network_range(rgb))
    for block in encoder.down_blocks:
        h = block(h)
    h = windowed_attention_by_hand(encoder, encoder.mid_block.resnets[0](h), 16, 4)
    assert_close(ours, encoder.mid_block.resnets[1](h), NETWORK)


@pytest.mark.parametrize("kind", ["flat", "gradient", "noise"])
def test_windows_leave_no_seam(encoder, monkeypatch, kind):
    """What windows change against the whole image varies no faster at their edges than anywhere, but for rounding."""
    rgb = {"flat": torch.full((1, 3, 160, 384), 0.4), "noise": image(20, 48)}.get(
        kind, torch.linspace(0.1, 0.9, 384).expand(1, 3, 160, 384)
    )
    features = whole(encoder, rgb)
    change = in_windows(monkeypatch, encoder, rgb, 16) - features
    jumps = change.diff(dim=-1).abs().mean(dim=(0, 1, 2))
    with monkeypatch.context() as m:
        m.setattr(tiled_encoder_attention, "WINDOW_CELLS", 16)
        m.setattr(tiled_encoder_attention, "OVERLAP_CELLS", 4)
        starts = tiled_encoder_attention.window_starts(48)
    edges = sorted({start - 1 for start in starts[1:]} | {start + 15 for start in starts[:-1]})
    assert jumps[edges].mean() <= 1.1 * jumps.mean() + ONE_MODULE * features.abs().max()


def test_moments_of_parts_are_those_of_all():
    """Far from zero and unequal in size and mean, where sums of squares in fp32 lose everything."""
    g = torch.Generator().manual_seed(0)
    x = 3000 + torch.randn((1, 8, 40, 50), generator=g) * torch.linspace(0.1, 2, 50) + torch.linspace(0, 3, 40)[:, None]
    moments = Moments(4)
    for part in (x[..., :3, :], x[..., 3:40, :7], x[..., 3:40, 7:]):
        moments.add(part)
    by_group = x.double().reshape(4, -1)
    # In fp32 a part's mean near 3000 is rounded by up to 3e-4. Measured: 1e-7 of the mean, 3e-5 of the variance.
    assert_close(moments.mean_G, by_group.mean(1), 2e-6)
    assert_close(moments.variance(), by_group.var(1, correction=0), 1e-3)
    half = Moments(4)
    half.add((x * 20).half())  # the sum of these overflows half precision at the second value
    assert torch.isfinite(half.variance()).all()
    assert_close(half.mean_G, by_group.mean(1) * 20, 1e-3)  # one rounding of fp16 is 5e-4
