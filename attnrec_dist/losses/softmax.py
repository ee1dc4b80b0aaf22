"""Cross-entropy over the whole catalogue, in chunks of queries: the [P, V] matrix of logits is never whole in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.settings import Section


class FullSoftmaxConfig(Section):
    name: Literal["softmax"] = "softmax"
    temperature: float = Field(1.0, gt=0, description="logits are divided by it; below 1 the model commits itself sooner")


class FullSoftmax(nn.Module):
    Config = FullSoftmaxConfig

    def __init__(self, config: FullSoftmaxConfig, spec: DataSpec):
        super().__init__()
        self.temperature = config.temperature

    def forward(self, output: Output, batch: SequenceBatch, table: ItemTable) -> tuple[Tensor, Tensor]:
        """(sum over the targets of weight times -log p(target), sum of weights).

        Only places that predict are scored: hidden[queries] is [P, D]; each has one target or a basket of them.
        """
        hidden = output.hidden.index_select(0, batch.queries)  # [P, D]
        if self.temperature != 1:
            hidden = hidden / self.temperature
        loss = table.cross_entropy(hidden, batch.targets, batch.target_query, batch.target_weight, output.beside)
        return loss, batch.target_weight.sum(dtype=loss.dtype)
