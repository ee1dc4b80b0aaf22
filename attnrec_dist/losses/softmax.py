"""Cross-entropy over the whole catalogue, in chunks of queries: the [P, V] matrix of logits is never whole in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.losses.base import Loss, LossConfig
from attnrec_dist.ops.item_table import ItemTable


class FullSoftmaxConfig(LossConfig):
    name: Literal["softmax"] = "softmax"
    temperature: float = Field(1.0, gt=0, description="logits are divided by it; below 1 the model commits itself sooner")

    @property
    def scale(self) -> float:
        return self.temperature


class FullSoftmax(Loss):
    Config = FullSoftmaxConfig

    def __init__(self, config: FullSoftmaxConfig, spec: DataSpec):
        super().__init__()
        self.temperature = config.temperature

    def forward(self, output: Output, batch: SequenceBatch, table: ItemTable) -> Tensor:
        """The sum over the targets of weight times -log p(target).

        Only places that predict are scored: hidden[queries] is [P, D]; each has one target or a basket of them.
        """
        hidden = output.hidden.index_select(0, batch.queries)  # [P, D]
        if self.temperature != 1:
            hidden = hidden / self.temperature
        return table.cross_entropy(hidden, batch.targets, batch.target_query, batch.target_weight, output.beside)
