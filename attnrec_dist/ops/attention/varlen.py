"""Attention on packed rows as they are, by PyTorch's variable-length flash kernel: GPU, half precision, singletons."""

from __future__ import annotations

import torch
from torch import Tensor

from attnrec_dist.ops.packed import Layout


def obstacle(q: Tensor, layout: Layout, dropout: float) -> str | None:
    if q.device.type != "cuda" or torch.cuda.get_device_capability(q.device) < (8, 0):
        return f"needs a GPU of compute capability 8.0 or later, the batch is on {q.device}"
    if q.dtype not in (torch.bfloat16, torch.float16):
        return f"needs bf16 or fp16, got {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > 256:
        return f"needs a width per head that is a multiple of 8 and at most 256, got {q.shape[-1]}"
    if layout.baskets is not None:
        return "cannot let the tokens of a basket see each other"
    if dropout > 0:
        return "has no attention dropout"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    offsets, longest = layout.offsets.int(), layout.max_length
    result = varlen_attn(q, k, v, offsets, offsets, longest, longest, window_size=(-1, 0))
    return result if isinstance(result, Tensor) else result[0]
