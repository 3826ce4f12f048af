"""Word attribution's maps against plain attention, where they stand in tiles and areas, and the picture it leaves alone."""

from __future__ import annotations

import pytest
import torch
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from comfyui_faithdiff.nodes.attribution_maps import hook
from comfyui_faithdiff.nodes.attribution_maps.words import prompt_words
from comfyui_faithdiff.nodes.seam.clip import encode
from nodes import ConditioningCombine, ConditioningSetArea, ConditioningSetTimestepRange
from support import tiny
from support.attribution import LONG, PROMPT, PlainAttention, all_words, run, sampled
from support.clips import small_clip
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.sampling import align
from support.tiles import official_starts, official_weights

IMAGE = tiny.image(96, 128)
BLOCK = "diffusion_model.middle_block.1.transformer_blocks.0"


@pytest.fixture(scope="module")
def clip():
    return small_clip()


@pytest.fixture(scope="module")
def aligned(loaded):
    return align(loaded, IMAGE)


@pytest.mark.parametrize(
    ("prompt", "negative"), [(PROMPT, ""), (PROMPT, LONG), (LONG, "")], ids=["same length", "long negative", "long"]
)
@pytest.mark.parametrize("cfg", [5.0, 1.0])
def test_shares_are_those_of_plain_attention(loaded, clip, aligned, prompt, negative, cfg):
    words = prompt_words(clip, prompt, "car, old car" if prompt == LONG else "red, dog")
    args = (*aligned, encode(clip, prompt), encode(clip, negative), words)
    expected = sampled(*args[:4], steps=3, cfg=cfg)
    with PlainAttention(loaded, words.words_TW, (12, 16)) as plain:
        sampled(*args[:4], steps=3, cfg=cfg)
    shares, latent = run(*args, steps=3, cfg=cfg)
    assert torch.equal(latent, expected)
    # the host's batch is (negative, positive), the positive last
    assert_close(shares, torch.stack([call[-1:] for call in plain.calls]).mean(0), NETWORK)
    assert shares.std() > CHANGED * shares.max()
    if prompt == LONG:  # the second word is the first one and what stands before it
        assert (shares[:, 1] > shares[:, 0]).all()


@pytest.mark.parametrize(
    "changes", [{}, {"cfg": 1.0}, {"tile_size": 64}, {"tile_size": 64, "tile_batch": 1, "sampler_name": "heun"}]
)
def test_the_picture_stays_bit_for_bit_and_all_tokens_get_everything(clip, aligned, changes):
    words = all_words(prompt_words(clip, PROMPT, "dog"))
    positive, negative = encode(clip, PROMPT), encode(clip, "")
    shares, latent = run(*aligned, positive, negative, words, **changes)
    assert torch.equal(latent, sampled(*aligned, positive, negative, **changes))
    assert_close(shares, torch.ones(1, 1, 12, 16), NETWORK)


def test_one_tile_is_untiled(clip, aligned):
    words, prompts = prompt_words(clip, PROMPT, "dog"), (encode(clip, PROMPT), encode(clip, ""))
    whole, tile = (run(*aligned, *prompts, words, tile_size=size)[0] for size in (0, 1024))
    assert torch.equal(whole, tile)


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_tiles_are_put_in_their_places(loaded, clip, aligned, tile_batch):
    """Against plain attention of the calls, blended as the tiles are."""
    words, prompts = prompt_words(clip, PROMPT, "dog"), (encode(clip, PROMPT), encode(clip, ""))
    changes = {"steps": 1, "tile_size": 64, "tile_batch": tile_batch}
    with PlainAttention(loaded, words.words_TW, (8, 8)) as plain:
        sampled(*aligned, *prompts, **changes)
    tiles = torch.cat([call[call.shape[0] // 2 :] for call in plain.calls])
    places = [(top, left) for top in official_starts(12, 8, 0.5) for left in official_starts(16, 8, 0.5)]
    assert len(tiles) == len(places) == 6
    weights, total, expected = official_weights(8, 8).float(), torch.zeros(12, 16), torch.zeros(12, 16)
    for tile, (top, left) in zip(tiles, places, strict=True):
        expected[top : top + 8, left : left + 8] += weights * tile[0]
        total[top : top + 8, left : left + 8] += weights
    shares, _ = run(*aligned, *prompts, words, **changes)
    assert_close(shares[0, 0], expected / total, NETWORK)


@pytest.mark.parametrize("tile_size", [0, 64])
def test_an_image_alone_is_as_in_a_batch(loaded, clip, tile_size):
    images = [tiny.image(96, 128, seed=seed) for seed in (0, 1)]
    words, prompts = prompt_words(clip, PROMPT, "dog, red car"), (encode(clip, PROMPT), encode(clip, ""))
    model, latent = align(loaded, torch.cat(images))
    both, _ = run(model, latent, *prompts, words, tile_size=tile_size)
    assert both.shape == (2, 2, 12, 16) and relative_difference(both[0], both[1]) > CHANGED
    for i, image in enumerate(images):
        alone, _ = align(loaded, image)
        one = {"samples": latent["samples"][i : i + 1], "batch_index": [i]}
        assert_close(run(alone, one, *prompts, words, tile_size=tile_size)[0][0], both[i], NETWORK)


@pytest.mark.parametrize("tile_size", [0, 64])
def test_areas_and_other_prompts(clip, aligned, tile_size):
    """The prompt acts in the left half only; another one, everywhere, is not looked at."""
    words, negative = all_words(prompt_words(clip, PROMPT, "dog")), encode(clip, "")
    (left,) = ConditioningSetArea().append(encode(clip, PROMPT), 64, 96, 0, 0, 1.0)
    (positive,) = ConditioningCombine().combine(left, encode(clip, "A dog."))
    shares, latent = run(*aligned, positive, negative, words, tile_size=tile_size)
    assert torch.equal(latent, sampled(*aligned, positive, negative, tile_size=tile_size))
    assert shares[..., 8:].abs().max() == 0
    assert_close(shares[..., :8], torch.ones(1, 1, 12, 8), NETWORK)


def test_calls_that_overflow_do_not_count(clip, aligned, monkeypatch):
    """A tile that is not finite is computed again; the first attempt's attention must not stay in the sums."""
    words, prompts = prompt_words(clip, PROMPT, "dog"), (encode(clip, PROMPT), encode(clip, ""))
    expected, _ = run(*aligned, *prompts, words)
    shares_of, calls = hook.word_shares, []

    def broken_at_first(*args, **kwargs):
        calls.append(1)
        return shares_of(*args, **kwargs) * (float("nan") if len(calls) == 1 else 1.0)

    monkeypatch.setattr(hook, "word_shares", broken_at_first)
    shares, _ = run(*aligned, *prompts, words)
    assert torch.isfinite(shares).all() and relative_difference(shares, expected) > CHANGED


@pytest.mark.long
def test_compiled_as_the_hosts_node_does(clip, aligned):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch._dynamo.reset()
    words, prompts = prompt_words(clip, PROMPT, "dog"), (encode(clip, PROMPT), encode(clip, ""))
    expected, _ = run(*aligned, *prompts, words)
    compiled = aligned[0].clone()
    # One block: the whole takes 13 s.
    options = {"guard_filter_fn": skip_torch_compile_dict}
    set_torch_compile_wrapper(model=compiled, backend="eager", options=options, keys=[BLOCK])
    shares, _ = run(compiled, aligned[1], *prompts, words)
    assert_close(shares, expected, NETWORK)


def test_a_run_in_which_the_prompt_never_acts_is_told_of(clip, aligned):
    (never,) = ConditioningSetTimestepRange().set_range(encode(clip, PROMPT), 1.0, 1.0)
    (positive,) = ConditioningCombine().combine(never, encode(clip, "A cat."))
    with pytest.raises(ValueError, match="expected to see the cross-attention to the prompt, got none"):
        run(*aligned, positive, encode(clip, ""), prompt_words(clip, PROMPT, "dog"))
