"""Full-softmax cross-entropy of a linear layer, a chunk of queries at a time: no [P, V] matrix, the gradient in the same pass.

For queries h_q, item vectors E and weighted targets (q_m, t_m, w_m):

    loss = sum_m w_m (logsumexp_j(h_q_m . E_j) - h_q_m . E_t_m)

With W_q = sum of w_m over the targets of q, and p_q = softmax(E h_q), the gradient with respect to the logits of q is
W_q (p_q - r_q), where r_q holds w_m / W_q at the targets. So one softmax a query serves all its targets, and W_q is
applied to the narrow side, [P, D], instead of the wide one, [P, V].

As one expert of a mixture, p(t_m) = a_m softmax(E h)_t_m + b_m with a_m, b_m given, the loss is -sum_m w_m log p(t_m). Its
gradient is the one above with w_m times the expert's responsibility a_m softmax / p in the place of w_m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnrec_dist.ops.products import by_onednn, times_transposed, torch_times_transposed

# Logits held at once, in elements, but of LEAST_QUERIES at least. CPU: 64 to 256 queries of 12,101 items were equally fast to
# 5 %, 16 and 512 some 15 % slower: a chunk has to stay near the cache. GPU: large enough to fill it; 256 MiB in fp32.
CHUNK_ELEMENTS = {"cpu": 128 * 12_288, "cuda": 2**26}
LEAST_QUERIES = 16  # of a million items: one query alone reads the table as often as 16 do, four times as slow a query
ONEDNN_QUERIES = 64  # of a chunk, from which a weight's gradient by oneDNN pays for being added afterwards


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    target_query: Tensor,
    target_weight: Tensor,
    chunk_elements: int | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Weighted sum over all targets, a scalar: fp32, or float64 when the hidden state is.

    Args:
        hidden: [P, D] what each query knows.
        weight: [V, D] item vectors.
        targets: [M] item of each target.
        target_query: [M] index into the queries, not decreasing; a query may have several targets, or none.
        target_weight: [M] not negative; a query whose weights sum to 0 has no gradient.
        chunk_elements: logits held at once; by default CHUNK_ELEMENTS of the device, or those of LEAST_QUERIES.
        beside: (log a [M], log b [M]), in a mixture: the share of this softmax in each target's probability, and what
            the other experts give it. Gradients flow into both.

    Matrix products run in the type of `hidden`, or in autocast's type inside autocast; sums, softmax and the gradients'
    accumulation in fp32. Gradients can be taken once, with respect to `hidden` and `weight`; where neither asks for
    one, none is formed. No value is read back from a GPU.
    """
    device = hidden.device.type
    if chunk_elements is None:
        chunk_elements = max(CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"]), LEAST_QUERIES * len(weight))
    plan = _Plan(max(1, chunk_elements // max(1, len(weight))), product_type(hidden), gradients=torch.is_grad_enabled())
    with torch.autocast(device, enabled=False):
        result: Tensor = _LinearCrossEntropy.apply(
            hidden, weight, *(beside or (None, None)), (targets, target_query, target_weight), plan
        )
    return result


def product_type(hidden: Tensor) -> torch.dtype:
    """The type in which matrix products of `hidden` run: its own, or autocast's inside autocast."""
    device = hidden.device.type
    autocast = hidden.dtype == torch.float32 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else hidden.dtype


@dataclass(frozen=True)
class _Plan:
    rows: int  # queries of a chunk
    product_type: torch.dtype
    gradients: bool


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        log_share: Tensor | None,
        log_rest: Tensor | None,
        targets: tuple[Tensor, Tensor, Tensor],
        plan: _Plan,
    ) -> Tensor:
        sum_type = torch.promote_types(hidden.dtype, torch.float32)
        for_hidden, for_weight = (plan.gradients and needed for needed in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden, dtype=sum_type) if for_hidden else None
        grad_weight = _WeightGradient(weight, sum_type, plan) if for_weight else None
        ctx.types = [None if each is None else each.dtype for each in (hidden, weight, log_share, log_rest)]
        hidden, weight = hidden.to(plan.product_type), weight.to(plan.product_type)
        items, target_query, shares = targets[0], targets[1], targets[2].to(sum_type)
        if log_share is None or log_rest is None:
            log_share, log_rest = torch.zeros_like(shares), torch.full_like(shares, -torch.inf)
        responsibility = torch.zeros_like(shares)  # of this softmax for each target; 1 where it is alone

        total = torch.zeros((), dtype=sum_type, device=hidden.device)
        for start, place, row in _chunks(target_query, len(hidden), plan.rows):
            chunk = hidden[start : start + plan.rows]  # [n, D]
            item = items[place]
            whole = len(chunk) == plan.rows  # the last chunk has a shape of its own, which oneDNN would have to compile for
            product = times_transposed if whole else torch_times_transposed
            logits = product(chunk, weight).to(sum_type)  # [n, V]
            at_target = logits[row, item]
            highest = logits.amax(-1)
            # In place on the CPU, where each row is then read and written while it is in the cache.
            softmax = torch.softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)
            # At the highest logit p >= 1/V, so its logarithm is exact to rounding: logsumexp without another pass of exp.
            own = log_share[place] + at_target - (highest - softmax.amax(-1).log())[row]
            log_p = torch.logaddexp(own, log_rest[place])
            share = torch.where(target_query[place] - start == row, shares[place], 0)
            total -= (share * log_p).sum()
            responsible = (own - log_p).exp()
            responsibility[place] = torch.where(share > 0, responsible, responsibility[place])
            if not (for_hidden or for_weight):
                continue
            share = share * responsible
            of_query = torch.zeros_like(highest).index_add_(0, row, share)[:, None]  # [n, 1]
            relative = torch.where(share > 0, share / of_query[row, 0], 0)
            slope = softmax.index_put_((row, item), -relative, accumulate=True).to(plan.product_type)  # [n, V]
            if grad_hidden is not None:
                grad_hidden[start : start + plan.rows] = of_query * product(slope, weight.t())
            if grad_weight is not None:
                grad_weight.add(slope, (of_query * chunk).to(plan.product_type), product)
            del logits, softmax, slope  # or the next chunk would find its place in memory taken
        of_log_share, of_log_rest = -shares * responsibility, -shares * (1 - responsibility)
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.whole(), of_log_share, of_log_rest)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.types, strict=True)
        gradients = [None if gradient is None or kind is None else (gradient * upstream).to(kind) for gradient, kind in pairs]
        return (*gradients, None, None)


class _WeightGradient:
    """The sum over all chunks of slope' chunk. oneDNN forms it twice as fast as [D, V], but cannot add: that is one more pass
    over the table for each chunk, so only for chunks of many queries. Else it is added up in place, as [V, D]."""

    def __init__(self, weight: Tensor, sum_type: torch.dtype, plan: _Plan):
        self.in_place = plan.rows < ONEDNN_QUERIES or not by_onednn(weight)
        self.total = torch.zeros(weight.shape if self.in_place else weight.t().shape, dtype=sum_type, device=weight.device)

    def add(self, slope: Tensor, chunk: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        """slope [n, V], chunk [n, D]."""
        if not self.in_place:
            self.total += product(chunk.t(), slope.t())
        elif self.total.dtype == slope.dtype:
            self.total.addmm_(slope.t(), chunk)
        else:
            self.total += slope.t() @ chunk

    def whole(self) -> Tensor:
        """[V, D]."""
        return self.total if self.in_place else self.total.t().contiguous()


def _chunks(query: Tensor, queries: int, rows: int) -> Iterator[tuple[int, slice, Tensor]]:
    """(first query, its chunk's targets, the row of each in the chunk) for each chunk of `rows` queries.

    On a CPU a chunk's targets are a slice. On a GPU finding its ends would make the host wait, so each chunk gets all
    targets; those of other chunks are told by a row that is not theirs.
    """
    starts = range(0, queries, rows)
    if _on_host(query):
        ends = torch.searchsorted(query, torch.tensor([*starts, queries], dtype=query.dtype)).tolist()
        for start, low, high in zip(starts, ends[:-1], ends[1:], strict=True):
            yield start, slice(low, high), query[low:high] - start
        return
    for start in starts:
        yield start, slice(None), (query - start).clamp(0, min(rows, queries - start) - 1)


def _on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
