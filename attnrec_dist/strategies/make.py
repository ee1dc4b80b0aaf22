"""Which strategy the objective gets: the one that the launch YAML asks for."""

from __future__ import annotations

from torch import nn

from attnrec_dist.strategies.base import Ddp, MakeOptimizer, Single, Strategy
from attnrec_dist.strategies.launch import Job


def make_strategy(job: Job, objective: nn.Module, make_optimizer: MakeOptimizer) -> Strategy:
    """The objective, equal on all ranks, spread as the launch YAML asks. A collective."""
    if job.asked.kind == "fsdp2":
        from attnrec_dist.strategies.fsdp2 import Fsdp2

        return Fsdp2(job, objective, make_optimizer)
    if job.asked.kind == "zero":
        from attnrec_dist.strategies.zero import Zero

        return Zero(job, objective, make_optimizer)
    return (Single if job.world.size == 1 else Ddp)(job, objective, make_optimizer)
