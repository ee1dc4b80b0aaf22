"""Negatives, as the sampled losses share them: which items stand against a query's targets, and what they score.

P queries, M targets, N negatives of a query, D width. Memory is a few [P, N] matrices of a micro-batch, never [P, N, D].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.errors import ConfigError, FaultError
from attnrec_dist.losses.base import LossConfig
from attnrec_dist.ops.draws import ItemSampler
from attnrec_dist.ops.item_table import ItemTable

COMPARED = 2**22  # (target, negative) pairs compared at once


class SampledConfig(LossConfig):
    """The keys that all sampled losses have."""

    name: str = "sampled"
    negatives: int = Field(256, ge=1, description="items drawn to stand against the targets, with replacement")
    distribution: Literal["uniform", "popularity"] = Field(
        "uniform", description="how they are drawn: all items alike, or in proportion to their training events"
    )
    shared: bool = Field(
        False, description="true: one set of negatives for all queries of a step, the cheapest; false: each query has its own"
    )

    @property
    def draws(self) -> int:
        return self.negatives


@dataclass
class Scored:
    """What a query's targets and negatives score, fp32 (float64 in a float64 run)."""

    targets: Tensor  # [M]
    negatives: Tensor  # [P, N]
    hits: Tensor  # [P, N] bool: drawn by accident, a target of the query itself
    ids: Tensor  # [P, N] or [N] the drawn items
    target_weight: Tensor  # [M]
    query_weight: Tensor  # [P] sum over the query's targets


class Negatives(nn.Module):
    """Draws them under the keys of the batch, so they do not depend on processes, micro-batches or restarts."""

    def __init__(self, config: SampledConfig, spec: DataSpec):
        super().__init__()
        self.config = config
        counts = None
        if config.distribution == "popularity":
            if spec.statistics is None:
                raise ConfigError("loss.distribution: popularity needs the data set's counts; type --loss.distribution uniform")
            counts = spec.statistics.popularity()
        self.sampler = ItemSampler(spec.num_items, counts)

    def forward(self, output: Output, batch: SequenceBatch, table: ItemTable) -> Scored:
        if output.beside is not None:
            raise ConfigError(
                f"loss.name: {self.config.name} scores a few items only, and a mixture's probabilities need all; "
                "type --loss.name softmax"
            )
        hidden = output.hidden.index_select(0, batch.queries)  # [P, D]
        ids = self.draw(batch)  # [P, N] or [N]
        negatives = table.chosen_logits(hidden, ids)
        of_target = hidden.index_select(0, batch.target_query)  # [M, D]
        weight = batch.target_weight.to(negatives.dtype)
        return Scored(
            targets=table.chosen_logits(of_target, batch.targets[:, None])[:, 0],
            negatives=negatives,
            hits=hits(ids, batch),
            ids=ids,
            target_weight=weight,
            query_weight=weight.new_zeros(len(hidden)).index_add_(0, batch.target_query, weight),
        )

    def log_expected(self, ids: Tensor) -> Tensor:
        """Log of how often each of these items is expected among the N, float64."""
        return self.sampler.log_p(ids) + math.log(self.config.negatives)

    def draw(self, batch: SequenceBatch) -> Tensor:
        """Items, [P, N], or [N] where all queries share them."""
        key = batch.step_key if self.config.shared else batch.query_keys
        if key is None:
            raise FaultError("the batch has no keys to draw negatives under: data/draw_keys.py adds them")
        ids: Tensor = self.sampler(key, self.config.negatives)
        return ids[0] if self.config.shared else ids


def hits(ids: Tensor, batch: SequenceBatch) -> Tensor:
    """Which negatives are one of their query's own targets, [P, N] bool, from ids [P, N] or [N]."""
    queries, count = len(batch.queries), ids.shape[-1]
    found = torch.zeros(queries, count, dtype=torch.int32, device=ids.device)
    size = max(1, COMPARED // count)
    for start in range(0, len(batch.targets), size):
        of_query = batch.target_query[start : start + size]
        drawn = ids if ids.dim() == 1 else ids.index_select(0, of_query)
        same = drawn == batch.targets[start : start + size, None]  # [m, N]
        found.index_add_(0, of_query, same.to(found.dtype))
    return found > 0
