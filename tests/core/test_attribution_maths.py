"""Word attribution's arithmetic against plain restatements."""

from __future__ import annotations

import pytest
import torch
from comfyui_faithdiff.faithdiff_core import attribution
from comfyui_faithdiff.faithdiff_core.attribution import (
    enlarged,
    find_tokens,
    half_area_frac,
    on_one_scale,
    word_shares,
    words_of_tokens,
)
from comfyui_faithdiff.faithdiff_core.geometry import Size
from support.compare import ONE_MODULE, assert_close


@pytest.mark.parametrize(
    ("prompt", "word", "places"),
    [
        ([5, 6, 7, 6], [6], [1, 3]),
        ([5, 6, 7, 6], [6, 7], [1, 2]),
        ([5, 6, 7, 6], [7, 5], []),
        ([6, 6, 6], [6, 6], [0, 1, 2]),
        ([5], [5, 6], []),
        ([5, 6], [], []),
    ],
)
def test_tokens_of_a_word(prompt, word, places):
    assert find_tokens(prompt, word) == places


def test_a_token_counts_for_its_words():
    assert words_of_tokens([[0, 2], [2]], 4).tolist() == [[1, 0], [0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("most_bytes", [0, 2 * 4 * 2 * 15 * 7, 2**26])  # one head at a time, two, all
def test_shares_are_those_of_a_plain_softmax(monkeypatch, most_bytes):
    monkeypatch.setattr(attribution, "MAX_SCORES_BYTES", most_bytes)
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 15, 24, generator=g), torch.randn(2, 7, 24, generator=g)
    words = words_of_tokens([[1], [3, 4], list(range(7))], 7)
    shares = word_shares(q, k, words, heads=3)
    assert shares.shape == (2, 15, 3) and shares.dtype == torch.float32
    for row in range(2):
        for place in range(15):
            heads = [torch.softmax(k[row, :, h : h + 8] @ q[row, place, h : h + 8] / 8**0.5, dim=0) for h in (0, 8, 16)]
            mean = torch.stack(heads).mean(dim=0)
            expected = torch.stack([mean[1], mean[3] + mean[4], mean.sum()])
            assert_close(shares[row, place], expected, ONE_MODULE)
    assert_close(shares[..., 2], torch.ones(2, 15), ONE_MODULE)


def test_half_precision_is_summed_in_full():
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, n, 16, generator=g).half() for n in (9, 5))
    words = words_of_tokens([[2]], 5)
    assert_close(word_shares(q, k, words, heads=2), word_shares(q.float(), k.float(), words, heads=2), ONE_MODULE)


def test_runs_share_a_scale():
    scaled = on_one_scale(torch.tensor([[[0.1, 0.2]], [[0.3, 0.5]]]))
    assert_close(scaled, torch.tensor([[[0.0, 0.25]], [[0.5, 1.0]]]), ONE_MODULE)
    assert on_one_scale(torch.full((2, 3, 3), 0.2)).abs().max() == 0


def test_the_area_that_holds_half():
    assert half_area_frac(torch.full((4, 5), 0.3)) == pytest.approx(0.5)
    assert half_area_frac(torch.zeros(4, 5)) == 0.0
    one = torch.zeros(4, 5)
    one[2, 3] = 0.7
    assert half_area_frac(one) == pytest.approx(0.5 / 20)
    assert half_area_frac(torch.tensor([[3.0, 1.0, 1.0, 1.0]])) == pytest.approx(1 / 4)


def test_enlarged_stays_in_range_and_in_place():
    small = torch.zeros(6, 9)
    small[4, 2] = 1.0
    large = enlarged(small, Size(48, 72))
    assert large.shape == (48, 72) and large.min() == 0 and large.max() <= 1
    row, column = divmod(int(large.argmax()), 72)
    assert (row // 8, column // 8) == (4, 2)
