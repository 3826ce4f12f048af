"""The attention call that the network's modules are given, the plain torch version of it, and queries in chunks.

Shapes: B batch, N tokens, C channels (all heads together).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F

MAX_SCORE_BYTES = 512 * 2**20
"""Scores that one call may hold where its backend holds them at all: 11585 x 11585 in fp32, so that an image of up to 860 px is
one call, and 1024 queries against the 262144 positions of a 4096 px image in half precision, enough to keep a GPU busy."""


class Attention(Protocol):
    """Multi-head attention over the token axis. Host and trainer each pass their own."""

    def __call__(self, q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor: ...


def torch_attention(q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor:
    """softmax(q k^T / sqrt(C / num_heads)) v per head, by torch's own fused kernel; returns (B, N, C)."""
    q, k, v = (torch.unflatten(t, -1, (num_heads, -1)).transpose(1, 2) for t in (q_BNC, k_BNC, v_BNC))  # (B, heads, N, C/heads)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def matmul_attention(q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The same for one head, by two matrix products: holds all scores at once, and runs on any device."""
    assert num_heads == 1, "one head only"
    scores_BNN = (q_BNC * q_BNC.shape[-1] ** -0.5) @ k_BNC.mT  # scaled first: unscaled scores overflow in half precision
    return torch.softmax(scores_BNN, dim=-1) @ v_BNC


def queries_at_once(k_BNC: torch.Tensor) -> int:
    """How many queries one one-head call may have against these keys, so that their scores stay within MAX_SCORE_BYTES."""
    batch, keys, _ = k_BNC.shape
    return max(1, MAX_SCORE_BYTES // (batch * keys * k_BNC.element_size()))


def attend_in_chunks(attention: Attention, q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor) -> torch.Tensor:
    """One-head attention, exact, with memory linear in N on every backend; returns (B, N, C)."""
    at_once = queries_at_once(k_BNC)
    if q_BNC.shape[1] <= at_once:
        return attention(q_BNC, k_BNC, v_BNC, 1)
    return torch.cat([attention(part_BNC, k_BNC, v_BNC, 1) for part_BNC in torch.split(q_BNC, at_once, dim=1)], dim=1)
