"""What goes with what the customer has: attention over the history, each item handing its weight to its neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attnrec_dist.batch import DataSpec
from attnrec_dist.errors import DataError
from attnrec_dist.models.experts.base import (
    NOTHING,
    Expert,
    ExpertConfig,
    HistoryAttention,
    QueryChunk,
    segment_log_sum_exp,
    spread,
)
from attnrec_dist.ops.edges import log_shares, row_sums


class GraphExpert(Expert):
    needs = ("neighbours",)

    def __init__(self, config: ExpertConfig, spec: DataSpec):
        super().__init__(config, spec)
        graph = spec.statistics.graph() if spec.statistics is not None else None
        if graph is None:
            raise DataError(
                "model.experts names graph, but the data set has no item graph; prepare it with statistics.graph.kind"
            )
        self.attention = HistoryAttention(config.width)
        self.graph = graph  # read-only arrays, mapped from the data set; no parameters
        self.sums = row_sums(graph.offsets, graph.weights)  # [V]
        self.num_items = spec.num_items

    def target_log_p(self, chunk: QueryChunk) -> Tensor:
        target, place = chunk.evidence["neighbours.target"], chunk.evidence["neighbours.token"]
        weights = self.attention(chunk)[chunk.target_query[target], place] + chunk.evidence["neighbours.log_weight"]  # [n]
        return segment_log_sum_exp(weights, target, len(chunk.target_query))

    def all_log_p(self, chunk: QueryChunk) -> Tensor:
        neighbours, log_share = self._rows(chunk.items)  # [c, S, N] each
        weights = self.attention(chunk)[:, :, None] + log_share
        return spread(weights.flatten(1), neighbours.flatten(1), self.num_items)

    def _rows(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours of each item and the log of their shares; padded with item 0 and NOTHING."""
        unique, inverse = np.unique(items.cpu().numpy(), return_inverse=True)
        sizes = self.graph.offsets[unique + 1] - self.graph.offsets[unique]
        place = np.arange(max(int(sizes.max(initial=1)), 1))
        edge = np.minimum(self.graph.offsets[unique][:, None] + place, max(len(self.graph.neighbours) - 1, 0))
        real = place < sizes[:, None]
        weights, sums = np.where(real, self.graph.weights[edge], 1), np.where(real, self.sums[unique][:, None], 1)
        log_share = np.where(real, log_shares(weights, sums), np.float32(NOTHING))
        neighbours = np.where(real, self.graph.neighbours[edge], 0).astype(np.int64)
        chosen = torch.from_numpy(inverse.reshape(items.shape))
        return (torch.from_numpy(table)[chosen].to(items.device) for table in (neighbours, log_share))  # type: ignore[return-value]
