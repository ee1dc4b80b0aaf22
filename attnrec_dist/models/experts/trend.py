"""What everybody buys these days: faded popularity under several half-lives, weighed by the customer's state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.errors import DataError
from attnrec_dist.models.experts.base import DAY, Expert, ExpertConfig, QueryChunk, wide


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
        days, of_query = torch.unique(chunk.times // int(DAY), return_inverse=True)
        tables = np.stack([self.trend.all_items(int(day) * int(DAY)) for day in days.tolist()])  # [days, V, H]
        log_p = torch.from_numpy(tables).to(chunk.state.device)
        shares = self._shares(chunk)  # [c, H]
        return torch.stack([(log_p[of_query[row]] + shares[row]).logsumexp(-1) for row in range(len(shares))])

    def _shares(self, chunk: QueryChunk) -> Tensor:
        return wide(self.choose(chunk.state)).log_softmax(-1)
