"""Attention on packed rows with baskets, by FlexAttention: blocks of scores that nobody may see are skipped."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnrec_dist.ops.packed import Layout

BLOCK = 128  # tokens; T is padded to a multiple, so that few sizes have to be compiled


def obstacle(q: Tensor, layout: Layout, dropout: float) -> str | None:
    if q.device.type != "cuda":
        return f"needs a GPU, the batch is on {q.device.type}"
    if q.dtype not in (torch.bfloat16, torch.float16):
        return f"needs bf16 or fp16, got {q.dtype}"
    if q.shape[-1] < 16:
        return f"needs a width per head of at least 16, got {q.shape[-1]}"
    if importlib.util.find_spec("triton") is None:
        return "needs the package triton"
    if dropout > 0:
        return "has no attention dropout"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float) -> Tensor:
    fill = -layout.num_tokens % BLOCK
    padded = [F.pad(each, (0, 0, 0, 0, 0, fill)).transpose(0, 1)[None] for each in (q, k, v)]  # [1, H, T', D/H]
    flex_attention = _compiled("flex_attention", q.device.type)
    result = flex_attention(*padded, block_mask=layout.once(block_mask))
    return result[0].transpose(0, 1)[: layout.num_tokens]


def block_mask(layout: Layout) -> Any:
    """FlexAttention's BlockMask of the batch: same row, own basket or an earlier one; padding sees padding."""
    fill = -layout.num_tokens % BLOCK
    rows = F.pad(layout.rows, (0, fill), value=layout.num_rows)
    segments = F.pad(layout.segments, (0, fill), value=layout.num_tokens)

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (rows[query] == rows[key]) & (segments[key] <= segments[query])

    size = layout.num_tokens + fill
    create = _compiled("create_block_mask", layout.device.type)
    return create(visible, None, None, size, size, device=layout.device, BLOCK_SIZE=BLOCK)


@cache
def _compiled(name: str, device: str) -> Callable[..., Any]:
    """A function of FlexAttention; compiled on a GPU, where uncompiled it would form all T x T scores."""
    from torch.nn.attention import flex_attention as library

    function = getattr(library, name)
    return torch.compile(function) if device == "cuda" else function
