"""Scores of chosen items, other ones for each query, with the gradient formed by hand: no [P, N, D] tensor is ever whole.

For queries h_q and item vectors E, logit (q, n) is h_q . E_i with i = ids[q, n]. With s the gradient of the logits,

    d h_q = sum_n s_qn E_ids[q, n]            d E_i = sum over the (q, n) with ids[q, n] = i of s_qn h_q

Both are weighted sums over bags of rows, so nothing of the width is stored for the backward pass, and on a GPU the additions
have an order (no atomics). Unit vectors E_i / |E_i| instead of E_i cost a scale for each draw and a projection in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnrec_dist.ops.linear_cross_entropy import product_type

# Elements of gathered item vectors held at once. CPU: 32 queries x 256 items x 64 were faster than 8 and than 256.
CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}
SMALLEST_SQUARE = 1e-24  # of a vector's length, as torch's normalize has it


def chosen_logits(hidden: Tensor, weight: Tensor, ids: Tensor, unit: bool = False, chunk_elements: int | None = None) -> Tensor:
    """Scores of items ids[q] for query q, [P, N]: fp32, or float64 when the hidden state is.

    Args:
        hidden: [P, D] what each query knows.
        weight: [V, D] item vectors.
        ids: [P, N] items, int64; one may stand there twice.
        unit: item vectors are scaled to length 1 (the queries are the caller's).
        chunk_elements: elements of gathered vectors held at once; by default CHUNK_ELEMENTS of the device.

    Matrix products run in the type of `hidden`, or in autocast's type inside autocast; gradients in fp32 (float64).
    """
    device = hidden.device.type
    if chunk_elements is None:
        chunk_elements = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"])
    plan = _Plan(max(1, chunk_elements // max(1, ids.shape[1] * weight.shape[1])), product_type(hidden), unit)
    with torch.autocast(device, enabled=False):
        result: Tensor = _ChosenLogits.apply(hidden, weight, ids, plan)
    return result


def inverse_lengths(vectors: Tensor) -> Tensor:
    """[..., D] -> [...]"""
    return vectors.square().sum(-1).clamp_(min=SMALLEST_SQUARE).rsqrt_()


@dataclass(frozen=True)
class _Plan:
    rows: int  # queries of a chunk
    product_type: torch.dtype
    unit: bool


class _ChosenLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, ids: Tensor, plan: _Plan) -> Tensor:
        sum_type = torch.promote_types(hidden.dtype, torch.float32)
        logits = torch.empty(ids.shape, dtype=sum_type, device=ids.device)
        scale = None  # 1 / length of each drawn vector
        if plan.unit:  # of all vectors at once where that is less
            scale = inverse_lengths(weight.to(sum_type))[ids] if len(weight) < ids.numel() else torch.empty_like(logits)
        for start in range(0, len(ids), plan.rows):
            part = slice(start, start + plan.rows)
            vectors = weight.index_select(0, ids[part].flatten()).unflatten(0, ids[part].shape)  # [n, N, D]
            queries = hidden[part, None].to(plan.product_type)  # [n, 1, D]
            logits[part] = torch.bmm(queries, vectors.to(plan.product_type).transpose(1, 2))[:, 0]
            if scale is not None and len(weight) >= ids.numel():
                scale[part] = inverse_lengths(vectors.to(sum_type))
        if scale is not None:
            logits *= scale
        ctx.save_for_backward(hidden, weight, ids, scale, logits if plan.unit else None)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, scale, logits = ctx.saved_tensors
        slope = upstream if scale is None else upstream * scale
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[0]:
            vectors = weight.to(upstream.dtype)
            grad_hidden = F.embedding_bag(ids, vectors, per_sample_weights=slope, mode="sum").to(hidden.dtype)
        if ctx.needs_input_grad[1]:
            order = ids.flatten().argsort(stable=True)
            sizes = torch.zeros(len(weight), dtype=torch.int64, device=ids.device)
            sizes.index_add_(0, ids.flatten(), torch.ones_like(order))
            bags = sizes.cumsum(0) - sizes  # [V] where each item's draws begin
            queries = hidden.to(upstream.dtype)
            grad_weight = F.embedding_bag(
                order // ids.shape[1], queries, bags, per_sample_weights=slope.flatten()[order], mode="sum"
            )
            if scale is not None:  # a change along the vector itself changes nothing
                along = (slope * logits * scale).flatten()[:, None]
                grad_weight -= F.embedding_bag(order, along, bags, mode="sum") * weight.to(upstream.dtype)
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None
