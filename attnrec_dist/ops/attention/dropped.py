"""Attention with dropout of its weights on rows of one length, on the CPU: a chunk at a time, the gradient by hand.

For one head, S = q k' / sqrt(d), P = softmax(S, masked), W = P keep / (1 - p), O = W v. PyTorch's own way keeps five [L, L]
matrices a head for the backward pass and takes most of its time to draw `keep`, a number each. Here a chunk of heads and queries
stays in the cache, keys that a causal chunk cannot see are left out, one 64-bit draw decides four entries, and what is kept
for the backward pass is `keep`, a byte each: it forms P again (Dao et al. 2022, algorithm 4). With D_i = dO_i . O_i,

    dv = W' dO      dP = (dO v') keep / (1 - p)      dS = P (dP - D)      dq = dS k / sqrt(d)      dk = dS' q / sqrt(d)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES = 64  # of a chunk: what is above a causal chunk's diagonal is at most this wide
CHUNK_ELEMENTS = 2**17  # of S held at once
LEVELS = 2**16  # shares that a draw tells apart


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """[n, H, L, d] each, fp32 or float64, and so the result; `mask` [n, 1, L, L] bool: who sees whom, None: causal."""
    result: Tensor = _Dropped.apply(q, k, v, mask, round(dropout * LEVELS))
    return result


class _Chunk(NamedTuple):
    heads: slice  # of the n H
    queries: slice
    keys: slice


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropped: int) -> Tensor:
        shape, ctx.share_kept = q.shape, 1 - dropped / LEVELS
        q, k, v = (each.reshape(-1, *shape[2:]) for each in (q, k, v))  # [n H, L, d]
        q = q * shape[3] ** -0.5
        hidden = _hidden(q, mask)
        out = torch.empty_like(q)
        kept = []
        for chunk in _chunks(q, causal=mask is None):
            weights = _weights(q, k, hidden, shape[1], chunk)
            keep = _draw(weights.numel(), dropped).view(weights.shape)
            kept.append(keep)
            out[chunk.heads, chunk.queries] = torch.bmm(weights.mul_(keep), v[chunk.heads, chunk.keys])
        out /= ctx.share_kept
        ctx.save_for_backward(q, k, v, hidden, out, *kept)
        ctx.shape, ctx.causal = shape, mask is None
        return out.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden, out, *kept = ctx.saved_tensors
        upstream = upstream.reshape(q.shape)
        common = (upstream * out).sum(-1, keepdim=True)  # [n H, L, 1]
        upstream = upstream / ctx.share_kept  # of every W
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for chunk, keep in zip(_chunks(q, ctx.causal), kept, strict=True):
            heads, queries, keys = chunk
            weights = _weights(q, k, hidden, ctx.shape[1], chunk)
            above = upstream[heads, queries]
            slope = torch.bmm(above, v[heads, keys].transpose(1, 2)).mul_(keep).sub_(common[heads, queries]).mul_(weights)
            grad_q[heads, queries] = torch.bmm(slope, k[heads, keys])
            grad_k[heads, keys].baddbmm_(slope.transpose(1, 2), q[heads, queries])
            grad_v[heads, keys].baddbmm_(weights.mul_(keep).transpose(1, 2), above)
        grad_q *= ctx.shape[3] ** -0.5  # grad_k has it from q
        return (*(each.view(ctx.shape) for each in (grad_q, grad_k, grad_v)), None, None)


def _hidden(q: Tensor, mask: Tensor | None) -> Tensor:
    """What is added to S: -inf where nothing is seen; [L, L] when causal, else [n, L, L]."""
    if mask is None:
        return q.new_full((q.shape[1], q.shape[1]), float("-inf")).triu_(1)
    return torch.zeros_like(mask[:, 0], dtype=q.dtype).masked_fill_(~mask[:, 0], float("-inf"))


def _chunks(q: Tensor, causal: bool) -> Iterator[_Chunk]:
    count, length, _ = q.shape
    heads = max(1, CHUNK_ELEMENTS // (min(QUERIES, length) * length))
    for head in range(0, count, heads):
        for query in range(0, length, QUERIES):
            stop = min(query + QUERIES, length)
            yield _Chunk(slice(head, head + heads), slice(query, stop), slice(0, stop if causal else length))


def _weights(q: Tensor, k: Tensor, hidden: Tensor, heads: int, chunk: _Chunk) -> Tensor:
    """P of a chunk; q comes scaled."""
    scores = torch.bmm(q[chunk.heads, chunk.queries], k[chunk.heads, chunk.keys].transpose(1, 2))
    if hidden.dim() == 2:  # causal: keys up to the last query, so only its own square is cut
        scores[:, :, chunk.queries] += hidden[chunk.queries, chunk.queries]
    else:
        row = torch.arange(chunk.heads.start, chunk.heads.start + len(scores)) // heads
        scores += hidden[row, chunk.queries, chunk.keys]
    return torch.softmax(scores, -1, out=scores)


def _draw(count: int, dropped: int) -> Tensor:
    """[count] bool, False in `dropped` of LEVELS cases: from torch's default generator, which is seeded for each micro-batch."""
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return bits.view(torch.int16)[:count] >= dropped - LEVELS // 2
