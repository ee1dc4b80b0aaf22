"""What the customer had before, again: attention over the history, added up by item."""

from __future__ import annotations

from torch import Tensor

from attnrec_dist.batch import DataSpec
from attnrec_dist.models.experts.base import Expert, ExpertConfig, HistoryAttention, QueryChunk, segment_log_sum_exp, spread


class CopyExpert(Expert):
    needs = ("repeats",)

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        self.attention = HistoryAttention(config.width)
        self.num_items = spec.num_items

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        target, place = chunk.evidence["repeats.target"], chunk.evidence["repeats.token"]
        weights = self.attention(chunk)[chunk.target_query[target], place]  # [n]
        return segment_log_sum_exp(weights, target, len(chunk.target_query))

    def all_log_p(self, chunk: QueryChunk) -> Tensor:
        return spread(self.attention(chunk), chunk.items, self.num_items)
