"""Word attribution: how much of a network's cross-attention goes to a word of the prompt, and where.

After DAAM (Tang et al. 2023, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", section 3): attention scores
of a word's tokens, averaged over heads and layers and steps, brought to one size by bicubic interpolation. Here they stay shares:
over all tokens of a prompt they add up to 1 at every position, so that two runs can be compared.

Shapes: B batch, N positions of a layer (its H * W), C channels of all heads together, T tokens, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .geometry import Size

MAX_SCORES_BYTES = 64 * 2**20
"""Scores of all tokens exist for some heads at a time only; at SDXL's sizes this is one piece up to 2048 x 2048 px."""


def find_tokens(prompt: Sequence[object], word: Sequence[object]) -> list[int]:
    """Indices in the prompt of the tokens of all occurrences of a word (or of several words in a row), in order."""
    length = len(word)
    starts = [i for i in range(len(prompt) - length + 1) if length and list(prompt[i : i + length]) == list(word)]
    return sorted({start + i for start in starts for i in range(length)})


def words_of_tokens(indices: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    """(T, W), 1 where a token belongs to a word: what `word_shares` sums by."""
    words_TW = torch.zeros(tokens, len(indices))
    for word, tokens_of_word in enumerate(indices):
        words_TW[list(tokens_of_word), word] = 1.0
    return words_TW


def word_shares(q_BNC: torch.Tensor, k_BTC: torch.Tensor, words_TW: torch.Tensor, heads: int) -> torch.Tensor:
    """Share of the attention that every position gives to each word, averaged over heads: fp32 (B, N, W) in [0, 1].

    Args:
        q_BNC: queries of one cross-attention, of any floating type.
        k_BTC: its keys.
        words_TW: weight of each token in each word.
        heads: heads that C is made of.
    """
    batch, positions, tokens = q_BNC.shape[0], q_BNC.shape[1], k_BTC.shape[1]
    q_BHND, k_BHTD = (torch.unflatten(t, -1, (heads, -1)).transpose(1, 2) for t in (q_BNC, k_BTC))
    scale = q_BHND.shape[-1] ** -0.5
    at_once = max(1, MAX_SCORES_BYTES // (4 * batch * positions * tokens))
    total_BNW = q_BNC.new_zeros((batch, positions, words_TW.shape[1]), dtype=torch.float32)
    for q_BhND, k_BhTD in zip(torch.split(q_BHND, at_once, dim=1), torch.split(k_BHTD, at_once, dim=1), strict=True):
        scores_BhNT = (q_BhND.float() * scale) @ k_BhTD.float().transpose(-1, -2)
        total_BNW += (scores_BhNT.softmax(dim=-1) @ words_TW.to(scores_BhNT)).sum(dim=1)
    return total_BNW / heads


def on_one_scale(shares_RHW: torch.Tensor) -> torch.Tensor:
    """Maps of one word from several runs, (R, H, W), stretched together: the lowest is 0 and the highest is 1.

    A word that gets the same everywhere is 0.
    """
    low, high = shares_RHW.amin(), shares_RHW.amax()
    return (shares_RHW - low) / (high - low).clamp_min(torch.finfo(shares_RHW.dtype).tiny)


def enlarged(map_HW: torch.Tensor, size_px: Size) -> torch.Tensor:
    """A map in [0, 1] at the picture's size, bicubic and clamped, as DAAM enlarges them: (*size_px)."""
    return F.interpolate(map_HW[None, None], size=tuple(size_px), mode="bicubic")[0, 0].clamp(0.0, 1.0)


def half_area_frac(share_HW: torch.Tensor) -> float:
    """The smallest part of the picture that holds half of a word's attention.

    0.5 where it is spread evenly, less where it is gathered; 0 where there is none.
    """
    sorted_N = share_HW.double().flatten().sort(descending=True).values
    if not sorted_N.any():
        return 0.0
    held_N = sorted_N.cumsum(0)
    # the last of them counts only as far as half of the attention needs it
    full = int((held_N < held_N[-1] / 2).sum())
    before = float(held_N[full - 1]) if full else 0.0
    return (full + (float(held_N[-1]) / 2 - before) / float(sorted_N[full])) / sorted_N.numel()
