"""Sampled softmax (Jean et al. 2015; the logQ correction: Bengio and Senecal 2008, Yi et al. 2019); InfoNCE with `normalize`.

Of the softmax's denominator the query's own targets are computed, all other items are estimated from N drawn ones:

    Z_q = sum over the targets t of q of exp(s_t) + sum over the negatives j of exp(s_j - log(N p_j))
    loss = sum_m w_m (log Z_q_m - s_m)

The targets stand in the sum with certainty, so a negative that is one of them by accident is left out, and no log p is taken
from their own scores: then the estimate of Z is unbiased and the loss, with its gradient, goes to the full softmax's as N
grows. Correcting the target too, as is often done, goes elsewhere, and under uniform draws corrects nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.losses.base import Loss
from attnrec_dist.losses.negatives import Negatives, SampledConfig
from attnrec_dist.ops.item_table import ItemTable

NOTHING = -1e30  # log of no probability; finite, so that a query whose negatives are all left out has a gradient


class SampledSoftmaxConfig(SampledConfig):
    name: Literal["sampled_softmax"] = "sampled_softmax"
    logq: bool = Field(
        True, description="negatives count for as many items as they stand for, so that the loss is an estimate of full softmax"
    )
    temperature: float = Field(1.0, gt=0, description="scores are divided by it")
    normalize: bool = Field(
        False,
        description="scores, and later ranks, are of the cosine: InfoNCE; wants a temperature such as 0.1",
    )

    @property
    def scores_cosines(self) -> bool:
        return self.normalize

    @property
    def scale(self) -> float:
        return self.temperature


class SampledSoftmax(Loss):
    Config = SampledSoftmaxConfig

    def __init__(self, config: SampledSoftmaxConfig, spec: DataSpec):
        super().__init__()
        self.config = config
        self.negatives = Negatives(config, spec)

    def forward(self, output: Output, batch: SequenceBatch, table: ItemTable) -> Tensor:
        """The sum over the targets of weight times log Z - score."""
        scored = self.negatives(output, batch, table)
        targets, negatives = scored.targets / self.config.temperature, scored.negatives / self.config.temperature
        if self.config.logq:
            negatives = negatives - self.negatives.log_expected(scored.ids).to(negatives.dtype)
        rest = negatives.masked_fill(scored.hits, NOTHING).logsumexp(-1)  # [P]
        log_z = with_targets(rest, targets, batch)
        return (scored.target_weight * (log_z[batch.target_query] - targets)).sum()


def with_targets(rest: Tensor, targets: Tensor, batch: SequenceBatch) -> Tensor:
    """log(exp(rest) + sum of exp(score) over each query's targets), [P]; an item that a basket holds twice counts once."""
    query = batch.target_query
    highest = rest.detach().scatter_reduce(0, query, targets.detach(), "amax")  # [P]
    once = (targets - highest[query]).exp() / multiplicity(batch)
    return highest + (rest - highest).exp().index_add(0, query, once).log()


def multiplicity(batch: SequenceBatch) -> Tensor:
    """How often each target stands among its query's targets, [M] int64: 1, but for goods that are in a basket twice."""
    size = len(batch.targets)
    by_item = batch.targets.argsort(stable=True)
    order = by_item[batch.target_query[by_item].argsort(stable=True)]
    query, item = batch.target_query[order], batch.targets[order]
    first = torch.ones(size, dtype=torch.bool, device=order.device)
    first[1:] = (query[1:] != query[:-1]) | (item[1:] != item[:-1])
    group = first.cumsum(0) - 1
    counts = torch.zeros_like(order).index_add_(0, group, torch.ones_like(order))
    return torch.empty_like(order).scatter_(0, order, counts[group])
