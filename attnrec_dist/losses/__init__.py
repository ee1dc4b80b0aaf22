"""The losses, by name. A new one is a file here and a line in LOSSES: docs/add-a-loss.md.

A loss is an nn.Module made as `Loss(config, spec)`, with a settings section `Config` and `forward(output, batch, table) ->
(sum, weight)`: fp32 scalars (float64 in a float64 run). It never divides; the engine does, by the weight of all ranks. Its `task`
says whose outputs it takes, next_item where it says nothing; for ranking `table` is None.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from attnrec_dist.batch import DataSpec, TaskName
from attnrec_dist.losses.bce import BCE
from attnrec_dist.losses.binary import Binary
from attnrec_dist.losses.sampled_softmax import SampledSoftmax
from attnrec_dist.losses.softmax import FullSoftmax
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.registry import lookup
from attnrec_dist.settings import Section

LOSSES: dict[str, Any] = {
    "softmax": FullSoftmax,
    "sampled_softmax": SampledSoftmax,
    "bce": BCE,
    "binary": Binary,
}
DEFAULT: dict[TaskName, str] = {"next_item": "softmax", "ranking": "binary"}


def loss_config_class(name: str) -> type[Section]:
    """The section that `loss.name: NAME` is checked against. Raises ConfigError on an unknown name."""
    config: type[Section] = lookup(LOSSES, name, "loss.name").Config
    return config


def loss_task(name: str) -> TaskName:
    """Which task a loss is made for."""
    task: TaskName = getattr(lookup(LOSSES, name, "loss.name"), "task", "next_item")
    return task


def build_loss(config: Any, spec: DataSpec) -> nn.Module:
    loss: nn.Module = lookup(LOSSES, config.name, "loss.name")(config, spec)
    return loss


def rank_as_trained(table: ItemTable, normalize: bool) -> None:
    """Has the table score by cosine where the loss trains cosines: in training, in evaluation and whenever it is loaded."""
    table.unit = normalize
