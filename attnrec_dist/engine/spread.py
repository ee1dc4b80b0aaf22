"""Which strategy the objective gets: the one that the launch YAML asks for."""

from __future__ import annotations

from torch import nn

from attnrec_dist.engine.join import Job
from attnrec_dist.engine.strategy import Ddp, MakeOptimizer, Single, Strategy


def spread(job: Job, objective: nn.Module, make_optimizer: MakeOptimizer) -> Strategy:
    """The objective, equal on all ranks, spread as the launch YAML asks. A collective."""
    if job.asked.kind == "fsdp2":
        from attnrec_dist.engine.strategy_fsdp2 import Fsdp2

        return Fsdp2(job, objective, make_optimizer)
    if job.asked.kind == "zero":
        from attnrec_dist.engine.strategy_zero import Zero

        return Zero(job, objective, make_optimizer)
    return (Single if job.world.size == 1 else Ddp)(job, objective, make_optimizer)
