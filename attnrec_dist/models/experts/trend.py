"""What all customers had of late: faded popularity under several half-lives, weighed by the customer's state."""

from __future__ import annotations

from torch import Tensor, nn

from attnrec_dist.batch import DataSpec
from attnrec_dist.models.experts.base import Expert, ExpertConfig, QueryChunk, wide
from attnrec_dist.models.experts.scoring import Faded
from attnrec_dist.ops.trend import Trend


class TrendExpert(Expert):
    needs = ("trend",)

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        self.trend: Trend = config.trend  # type: ignore[assignment]  # else it would be silent
        self.choose = nn.Linear(config.width, len(config.half_lives))

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        share = self._shares(chunk)[chunk.target_query]  # [m, H]
        return (share + chunk.evidence["trend"]).logsumexp(-1)

    def opinion(self, chunk: QueryChunk) -> Faded:
        return Faded(self._shares(chunk).exp(), chunk.times, self.trend)

    def _shares(self, chunk: QueryChunk) -> Tensor:
        return wide(self.choose(chunk.state)).log_softmax(-1)
