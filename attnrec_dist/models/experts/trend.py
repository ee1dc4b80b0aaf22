"""What everybody buys these days: faded popularity under several half-lives, weighed by the customer's state."""

from __future__ import annotations

from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.errors import DataError
from attnrec_dist.models.experts.base import Expert, ExpertConfig, QueryChunk, wide
from attnrec_dist.models.experts.opinions import Faded


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

    def opinion(self, chunk: QueryChunk) -> Faded:
        return Faded(self._shares(chunk).exp(), chunk.times, self.trend)

    def _shares(self, chunk: QueryChunk) -> Tensor:
        return wide(self.choose(chunk.state)).log_softmax(-1)
