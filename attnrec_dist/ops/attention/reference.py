"""The slow kernel that the others are tested against: one [T, T] matrix a head, one explicit mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attnrec_dist.ops.packed import Layout


def obstacle(q: Tensor, layout: Layout, dropout: float) -> str | None:
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float) -> Tensor:
    """softmax(q k' / sqrt(D/H), masked) v, in fp32 at least. Memory H T^2: for tests and for a look inside."""
    kind = torch.promote_types(q.dtype, torch.float32)
    wide_q, wide_k, wide_v = (each.to(kind).transpose(0, 1) for each in (q, k, v))  # each [H, T, D/H]
    scores = wide_q @ wide_k.transpose(1, 2) * q.shape[-1] ** -0.5  # [H, T, T]
    weights = scores.masked_fill(~visible(layout), float("-inf")).softmax(-1)
    return (F.dropout(weights, dropout) @ wide_v).transpose(0, 1).to(q.dtype)


def visible(layout: Layout) -> Tensor:
    """Who sees whom, [T, T] bool: entry (i, j) says that token i sees token j."""
    same_row = layout.rows[:, None] == layout.rows[None, :]
    return same_row & (layout.segments[None, :] <= layout.segments[:, None])
