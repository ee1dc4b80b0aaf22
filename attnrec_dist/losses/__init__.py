"""The losses, by name. A new one is a file here and a line in LOSSES.

A loss is an nn.Module made as `Loss(config)`, with a settings section `Config` and `forward(output, batch, table) ->
(sum, weight)`: fp32 scalars (float64 in a float64 run). It never divides; the engine does, by the weight of all ranks.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from attnrec_dist.losses.softmax import FullSoftmax
from attnrec_dist.ops.registry import lookup
from attnrec_dist.settings import Section

LOSSES: dict[str, Any] = {
    "softmax": FullSoftmax,
}


def loss_config_class(name: str) -> type[Section]:
    """The section that `loss.name: NAME` is checked against. Raises ConfigError on an unknown name."""
    config: type[Section] = lookup(LOSSES, name, "loss.name").Config
    return config


def build_loss(config: Any) -> nn.Module:
    loss: nn.Module = lookup(LOSSES, config.name, "loss.name")(config)
    return loss
