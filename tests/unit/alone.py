"""A module with its optimizer as a strategy of one process holds them."""

from __future__ import annotations

import torch
from torch import nn

from attnrec_dist.checkpoints.optimizer_state import part_tensors
from attnrec_dist.distributed import World
from attnrec_dist.strategies.base import Single
from attnrec_dist.strategies.launch import Job
from attnrec_dist.strategies.precision import Precision


def alone(module: nn.Module, optimizer: torch.optim.Optimizer, precision: str = "fp32") -> Single:
    return Single(Job(World(), Precision(precision, torch.device("cpu"))), module, lambda _: optimizer)


def stored(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of the optimizer, by name, averages apart."""
    return part_tensors(alone(module, optimizer).pieces, optimizer, sharded=False)[0]
