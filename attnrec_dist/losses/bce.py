"""Binary cross-entropy over each target and its negatives; gBCE (gSASRec, Petrov and Macdonald 2023) with `calibration`.

    loss = sum_m w_m / (1 + k) (beta softplus(-s_m) + sum over the k negatives j of softplus(s_j))

beta = 1 is SASRec's loss. With few negatives of many items it makes a model overconfident: it learns sigmoid(s) as if the
target's rivals were only the drawn ones. gBCE raises the target's sigmoid to the power beta = 1 - t (1 - a), where
a = k / (V - 1) is the share of the other items that is drawn: t = 1 calibrates fully, t = 0 is plain.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attnrec_dist.batch import DataSpec, Output, SequenceBatch
from attnrec_dist.losses.base import Loss
from attnrec_dist.losses.negatives import Negatives, SampledConfig
from attnrec_dist.ops.item_table import ItemTable


class BCEConfig(SampledConfig):
    name: Literal["bce"] = "bce"
    calibration: float = Field(
        0.0, ge=0, le=1, description="gBCE's t: 0 plain binary cross-entropy, 1 fully calibrated; the paper uses 0.75"
    )


class BCE(Loss):
    Config = BCEConfig

    def __init__(self, config: BCEConfig, spec: DataSpec):
        super().__init__()
        self.negatives = Negatives(config, spec)
        self.count = config.negatives
        drawn = min(1.0, config.negatives / max(1, spec.num_items - 1))
        self.beta = 1 - config.calibration * (1 - drawn)

    def forward(self, output: Output, batch: SequenceBatch, table: ItemTable) -> Tensor:
        """The sum over the targets of weight times the mean over the target and its negatives."""
        scored = self.negatives(output, batch, table)
        against = F.softplus(scored.negatives).masked_fill(scored.hits, 0).sum(-1)  # [P]
        loss = self.beta * (scored.target_weight * F.softplus(-scored.targets)).sum() + (scored.query_weight * against).sum()
        return loss / (1 + self.count)
