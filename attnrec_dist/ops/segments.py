"""Sums and softmax over the rows of a packed batch: what stands for attention where each row has one query, as a candidate item
has over a history. Rows may be empty. Letters: see batch.py."""

from __future__ import annotations

import torch
from torch import Tensor

from attnrec_dist.ops.packed import Layout


def row_sums(values: Tensor, layout: Layout) -> Tensor:
    """Sum over the tokens of each row, [T, ...] -> [B, ...]; 0 for an empty row. In fp32 at least."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return wide.new_zeros(layout.num_rows, *values.shape[1:]).index_add(0, layout.rows, wide)


def row_means(values: Tensor, layout: Layout) -> Tensor:
    """Mean over the tokens of each row, [T, D] -> [B, D]; 0 for an empty row. In fp32 at least."""
    return row_sums(values, layout) / layout.lengths.clamp(min=1)[:, None]


def row_softmax(scores: Tensor, layout: Layout) -> Tensor:
    """Softmax over the tokens of each row, apart for each head: [T, H] -> [T, H], in fp32 at least."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    index = layout.rows[:, None].expand_as(wide)
    highest = wide.new_full((layout.num_rows, wide.shape[1]), float("-inf")).scatter_reduce(0, index, wide.detach(), "amax")
    raised = (wide - highest.index_select(0, layout.rows)).exp()
    return raised / row_sums(raised, layout).index_select(0, layout.rows)
