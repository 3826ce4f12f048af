"""The attention call that the network's modules are given, and the plain torch version of it.

Shapes: B batch, N tokens, C channels (all heads together).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F


class Attention(Protocol):
    """Multi-head attention over the token axis. Host and trainer each pass their own."""

    def __call__(self, q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor: ...


def torch_attention(q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor:
    """softmax(q k^T / sqrt(C / num_heads)) v per head, by torch's own fused kernel; returns (B, N, C)."""
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q_BNC, k_BNC, v_BNC))  # (B, heads, N, C/heads)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
