"""What everybody buys these days: faded popularity under several half-lives, weighed by the customer's state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.errors import DataError
from attnrec_dist.models.experts.base import Expert, ExpertConfig, QueryChunk, by_day, wide


class TrendExpert(Expert):
    needs = ("trend",)

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        if config.trend is None:
            raise DataError("model.experts names trend, but the data set keeps no daily counts; prepare it again")
        self.trend = config.trend
        self.choose = nn.Linear(config.width, len(config.half_lives))

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        share = self._shares(chunk)[chunk.target_query]  # [m, H]
        return (share + chunk.evidence["trend"]).logsumexp(-1)

    def all_log_p(self, chunk: QueryChunk) -> Tensor:
        share = self._shares(chunk).exp()  # [c, H]
        p = share.new_empty(len(share), self.trend.num_items)
        with torch.autocast(share.device.type, enabled=False):  # or it would round the product
            for of_day, log_p in by_day(self.trend, chunk):
                p[of_day] = share[of_day] @ log_p.exp().t().to(share.dtype)
        return p.log_()  # every item is credited with some events, so no p is 0

    def _shares(self, chunk: QueryChunk) -> Tensor:
        return wide(self.choose(chunk.state)).log_softmax(-1)
