"""What the customer had before, again: attention over the history, added up by item.

Besides content and age the attention knows how each item sells these days: customers re-buy what the shop still sells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.models.experts.base import (
    DAY,
    PACE,
    Expert,
    ExpertConfig,
    HistoryAttention,
    QueryChunk,
    segment_log_sum_exp,
)
from attnrec_dist.models.experts.scoring import Listed, lately, spread
from attnrec_dist.ops.trend import Trend

TREND_POWER = 0.5  # with which a fortnight's popularity enters before anything is learnt


class CopyExpert(Expert):
    needs = ("repeats",)
    of_the_unknown = False
    prior: Tensor

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        self.attention = HistoryAttention(config.width)
        self.num_items = spec.num_items
        self.trend = config.trend
        self.by_trend = nn.Parameter(torch.zeros(len(config.half_lives))) if config.trend is not None else None
        prior = torch.zeros(len(config.half_lives))
        prior[lately(config.half_lives)] = TREND_POWER
        self.register_buffer("prior", prior, persistent=False)

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        target, place = chunk.evidence["repeats.target"], chunk.evidence["repeats.token"]
        weights = self._weights(chunk)[chunk.target_query[target], place]  # [n]
        return segment_log_sum_exp(weights, target, len(chunk.target_query))

    def opinion(self, chunk: QueryChunk) -> Listed:
        return spread(self._weights(chunk), chunk.items, self.num_items)

    def _weights(self, chunk: QueryChunk) -> Tensor:
        """Log weights of the history, [c, S]."""
        if self.trend is None or self.by_trend is None:
            return self.attention(chunk)
        log_p = lookup_trend(self.trend, chunk)  # [c, S, H]
        selling = (log_p * (self.prior + PACE * self.by_trend)).sum(-1)  # no matrix product: autocast would round it
        return self.attention(chunk, selling)


def lookup_trend(trend: Trend, chunk: QueryChunk) -> Tensor:
    """Log of each history item's faded popularity at the query's time, [c, S, H]; looked up once for each (item, day)."""
    day = (chunk.times // int(DAY)).cpu().numpy()
    items = chunk.items.cpu().numpy()
    start = day.min(initial=0)  # below 0 before 1970
    span = day.max(initial=0) - start + 1
    key, place = np.unique(items * span + day[:, None] - start, return_inverse=True)
    item, at = np.divmod(key, span)
    found = torch.from_numpy(trend.log_p(item, (at + start) * int(DAY))[place.reshape(items.shape)])
    return found.to(chunk.state.device, torch.promote_types(chunk.state.dtype, torch.float32))
