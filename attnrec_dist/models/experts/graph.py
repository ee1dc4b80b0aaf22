"""What goes with what the customer has: attention over the history, each item handing its weight to its neighbours.

A neighbour that no longer sells is worth little, so each is gated by its faded popularity: p = sum_t a_t G(t, i) r_i, with r_i
from 0 to 1 a logistic function of the item's popularity under the half-lives.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.models.experts.base import (
    NOTHING,
    PACE,
    Expert,
    ExpertConfig,
    HistoryAttention,
    QueryChunk,
    segment_log_sum_exp,
)
from attnrec_dist.models.experts.scoring import Listed, by_day, lately, spread
from attnrec_dist.ops.edges import log_shares, row_sums
from attnrec_dist.ops.trend import Trend

OPEN = 2.0  # the gate starts open: 0.88 for an item whose popularity stands still


class GraphExpert(Expert):
    needs = ("neighbours", "trend")
    prior: Tensor

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        self.attention = HistoryAttention(config.width)
        self.graph = spec.statistics.graph()  # read-only arrays, mapped from the data set; no parameters
        self.sums = row_sums(self.graph.offsets, self.graph.weights)  # [V]
        self.num_items = spec.num_items
        self.trend: Trend = config.trend  # type: ignore[assignment]  # else it would be silent
        self.rise = nn.Parameter(torch.zeros(len(config.half_lives) + 1))
        self.register_buffer("prior", rising(config.half_lives), persistent=False)

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        target, place = chunk.evidence["neighbours.target"], chunk.evidence["neighbours.token"]
        weights = self.attention(chunk)[chunk.target_query[target], place] + chunk.evidence["neighbours.log_weight"]  # [n]
        return segment_log_sum_exp(weights, target, len(chunk.target_query)) + self._log_gate(chunk.evidence["trend"])

    def opinion(self, chunk: QueryChunk) -> Listed:
        neighbours, log_share = self._rows(chunk.items)  # [c, S, N] each
        weights = self.attention(chunk)[:, :, None] + log_share
        listed = spread(weights.flatten(1), neighbours.flatten(1), self.num_items)
        query, item = listed.query, listed.item
        for rows, log_p in by_day(self.trend, chunk.times, listed.p):
            mine = torch.isin(query, rows)
            listed.p[mine] *= self._log_gate(log_p[item[mine]]).exp()
        return listed

    def _log_gate(self, log_p: Tensor) -> Tensor:
        """Log r of items whose log popularity [n, H] is given, [n]."""
        relative = log_p.to(self.rise.dtype) + math.log(self.num_items)  # 0: as popular as the average item
        slope = (self.prior + PACE * self.rise)[:-1]
        score = (relative * slope).sum(-1)  # no matrix product: autocast would round it
        return F.logsigmoid(score + PACE * self.rise[-1] + OPEN)

    def _rows(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours of each item and the log of their shares; padded with item 0 and NOTHING."""
        unique, inverse = np.unique(items.cpu().numpy(), return_inverse=True)
        sizes = self.graph.offsets[unique + 1] - self.graph.offsets[unique]
        place = np.arange(max(int(sizes.max(initial=1)), 1))
        edge = np.minimum(self.graph.offsets[unique][:, None] + place, len(self.graph.neighbours) - 1)
        real = place < sizes[:, None]
        weights, sums = np.where(real, self.graph.weights[edge], 1), np.where(real, self.sums[unique][:, None], 1)
        log_share = np.where(real, log_shares(weights, sums), np.float32(NOTHING))
        neighbours = np.where(real, self.graph.neighbours[edge], 0).astype(np.int64)
        chosen = torch.from_numpy(inverse.reshape(items.shape))
        return (torch.from_numpy(table)[chosen].to(items.device) for table in (neighbours, log_share))  # type: ignore[return-value]


def rising(half_lives: tuple[float, ...]) -> Tensor:
    """Where the gate starts: a fortnight's popularity against that of the longest half-life, [H + 1]."""
    prior = torch.zeros(len(half_lives) + 1)
    fortnight = lately(half_lives)
    longest = int(np.argmax(half_lives))
    if fortnight != longest:
        prior[fortnight], prior[longest] = 1.0, -1.0
    return prior
