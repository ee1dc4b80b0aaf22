"""The losses, by name. A new one is a file here and a line in LOSSES: docs/add-a-loss.md. base.py is the contract."""

from __future__ import annotations

from typing import Any

from attnrec_dist.batch import DataSpec, TaskName
from attnrec_dist.losses.base import Loss, LossConfig
from attnrec_dist.losses.bce import BCE
from attnrec_dist.losses.binary import Binary
from attnrec_dist.losses.sampled_softmax import SampledSoftmax
from attnrec_dist.losses.softmax import FullSoftmax
from attnrec_dist.registry import Registry

LOSSES: Registry[type[Loss]] = Registry(
    "loss.name",
    "attnrec_dist.losses",
    {
        "softmax": FullSoftmax,
        "sampled_softmax": SampledSoftmax,
        "bce": BCE,
        "binary": Binary,
    },
)
DEFAULT: dict[TaskName, str] = {"next_item": "softmax", "ranking": "binary"}


def loss_config_class(name: str) -> type[LossConfig]:
    """The section that `loss.name: NAME` is checked against. Raises ConfigError on an unknown name."""
    return LOSSES.find(name).Config


def loss_task(name: str) -> TaskName:
    """Which task a loss is made for."""
    return LOSSES.find(name).task


def build_loss(config: Any, spec: DataSpec) -> Loss:
    return LOSSES.find(config.name)(config, spec)
