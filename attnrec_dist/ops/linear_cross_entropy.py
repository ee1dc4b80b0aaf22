"""Full-softmax cross-entropy of a linear layer, a chunk of queries at a time: no [P, V] matrix, the gradient in the same pass.

For queries h_q, item vectors E and weighted targets (q_m, t_m, w_m):

    loss = sum_m w_m (logsumexp_j(h_q_m . E_j) - h_q_m . E_t_m)

With W_q = sum of w_m over the targets of q, and p_q = softmax(E h_q), the gradient with respect to the logits of q is
W_q (p_q - r_q), where r_q holds w_m / W_q at the targets. So one softmax a query serves all its targets, and W_q is
applied to the narrow side, [P, D], instead of the wide one, [P, V].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at once, in elements (at least one query's). CPU: 64 to 256 queries of 12,101 items were equally fast to
# 5 %, 16 and 512 some 15 % slower: a chunk has to stay near the cache. GPU: large enough to fill it; 256 MiB in fp32.
CHUNK_ELEMENTS = {"cpu": 128 * 12_288, "cuda": 2**26}


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    target_query: Tensor,
    target_weight: Tensor,
    chunk_elements: int | None = None,
) -> Tensor:
    """Weighted sum over all targets, a scalar: fp32, or float64 when the hidden state is.

    Args:
        hidden: [P, D] what each query knows.
        weight: [V, D] item vectors.
        targets: [M] item of each target.
        target_query: [M] index into the queries, not decreasing; a query may have several targets, or none.
        target_weight: [M] not negative; a query whose weights sum to 0 has no gradient.
        chunk_elements: logits held at once; by default CHUNK_ELEMENTS of the device.

    Matrix products run in the type of `hidden`, or in autocast's type inside autocast; sums, softmax and the gradients'
    accumulation in fp32. Gradients can be taken once, with respect to `hidden` and `weight`; where neither asks for
    one, none is formed. No value is read back from a GPU.
    """
    device = hidden.device.type
    product_type = hidden.dtype
    if hidden.dtype == torch.float32 and torch.is_autocast_enabled(device):
        product_type = torch.get_autocast_dtype(device)
    if chunk_elements is None:
        chunk_elements = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"])
    plan = _Plan(rows=max(1, chunk_elements // max(1, len(weight))), product_type=product_type, gradients=torch.is_grad_enabled())
    with torch.autocast(device, enabled=False):
        result: Tensor = _LinearCrossEntropy.apply(hidden, weight, (targets, target_query, target_weight), plan)
    return result


@dataclass(frozen=True)
class _Plan:
    rows: int  # queries of a chunk
    product_type: torch.dtype
    gradients: bool


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: tuple[Tensor, Tensor, Tensor], plan: _Plan) -> Tensor:
        sum_type = torch.promote_types(hidden.dtype, torch.float32)
        for_hidden, for_weight = (plan.gradients and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden, dtype=sum_type) if for_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=sum_type) if for_weight else None
        ctx.types = hidden.dtype, weight.dtype
        hidden, weight = hidden.to(plan.product_type), weight.to(plan.product_type)
        items, target_query, shares = targets[0], targets[1], targets[2].to(sum_type)
        query_weight = torch.zeros(len(hidden), dtype=sum_type, device=hidden.device).index_add_(0, target_query, shares)
        buffer = hidden.new_empty(min(plan.rows, len(hidden)), len(weight))  # the logits of one chunk

        total = torch.zeros((), dtype=sum_type, device=hidden.device)
        for start, (row, item, share) in _chunks((items, target_query, shares), len(hidden), plan.rows):
            chunk = hidden[start : start + plan.rows]  # [n, D]
            of_query = query_weight[start : start + plan.rows, None]  # [n, 1]
            logits = torch.mm(chunk, weight.t(), out=buffer[: len(chunk)]).to(sum_type)  # [n, V]
            total -= (logits[row, item] * share).sum()
            highest = logits.amax(-1, keepdim=True)
            # In place on the CPU, where each row is then read and written while it is in the cache.
            softmax = torch.softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)
            # At the highest logit p >= 1/V, so its logarithm is exact to rounding: logsumexp without another pass of exp.
            total += ((highest - softmax.amax(-1, keepdim=True).log()) * of_query).sum()
            if not (for_hidden or for_weight):
                continue
            relative = torch.where(share > 0, share / of_query[row, 0], 0)
            slope = softmax.index_put_((row, item), -relative, accumulate=True).to(plan.product_type)  # [n, V]
            if grad_hidden is not None:
                grad_hidden[start : start + plan.rows] = of_query * (slope @ weight)
            if grad_weight is not None:
                _add_product(grad_weight, slope, (of_query * chunk).to(plan.product_type))
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.types, strict=True)
        return (*(None if gradient is None else (gradient * upstream).to(kind) for gradient, kind in pairs), None, None)


def _add_product(total: Tensor, slope: Tensor, chunk: Tensor) -> None:
    """total [V, D] += slope' [V, n] chunk [n, D], added up in the type of `total`."""
    if total.dtype == slope.dtype:
        total.addmm_(slope.t(), chunk)
    else:
        total += slope.t() @ chunk


def _chunks(targets: tuple[Tensor, ...], queries: int, rows: int) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """(first query, its chunk's targets as (row in the chunk, item, weight)) for each chunk of `rows` queries.

    On a CPU a chunk's targets are a slice. On a GPU finding its ends would make the host wait, so each chunk gets all
    targets, those of other chunks with weight 0.
    """
    item, query, weight = targets
    starts = range(0, queries, rows)
    if _on_host(item):
        ends = torch.searchsorted(query, torch.tensor([*starts, queries], dtype=query.dtype)).tolist()
        for start, low, high in zip(starts, ends[:-1], ends[1:], strict=True):
            yield start, (query[low:high] - start, item[low:high], weight[low:high])
        return
    for start in starts:
        count = min(rows, queries - start)
        inside = (query >= start) & (query < start + count)
        yield start, ((query - start).clamp(0, count - 1), item, torch.where(inside, weight, 0))


def _on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
