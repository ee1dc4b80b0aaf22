"""FSDP2: weights, gradients and the optimizer's state are cut by rows; a block's weights are whole while it computes.

Blocks of a transformer are gathered one at a time, everything else, the item table included, with the objective as a whole: the
table is used at both ends of a step. So a table that does not fit into one GPU does not fit here either (that
needs a table of which only the rows that a batch asks for travel).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from attnrec_dist.distributed import needing_peers
from attnrec_dist.models.layers.transformer import Block
from attnrec_dist.strategies.base import MakeOptimizer, Sharded, Single
from attnrec_dist.strategies.launch import Job
from attnrec_dist.strategies.shards import Piece, local


class Fsdp2(Sharded, Single):
    """Full shard over all ranks, or over each of `replicas` groups of them, whose gradients are added up (hybrid shard)."""

    sharded = True
    module: FSDPModule  # type: ignore[assignment]

    def __init__(self, job: Job, objective: nn.Module, make_optimizer: MakeOptimizer):
        Sharded.__init__(self, job, objective)
        self.replicas = replicas = job.asked.replicas
        shards = job.world.size // replicas
        shape, names = ((shards,), ("shard",)) if replicas == 1 else ((replicas, shards), ("replicate", "shard"))
        with needing_peers("wrapping the model"):
            mesh = init_device_mesh(job.world.device.type, shape, mesh_dim_names=names)
            for part in [*(each for each in objective.modules() if isinstance(each, Block)), objective]:
                fully_shard(part, mesh=mesh, reshard_after_forward=job.asked.reshard and part is not objective)
        for part in objective.modules():
            if isinstance(part, FSDPModule):
                part.set_force_sum_reduction_for_comms(True)  # gloo knows no average; the same additions on GPUs
        self.objective = self.module = objective  # type: ignore[assignment]
        self.optimizer = make_optimizer(objective)
        self.pieces = list(self._rows(job.world.rank % shards, shards))

    def _rows(self, place: int, shards: int) -> Iterator[Piece]:
        """Each parameter's rows of this rank: as many as of any other, but for the last ones that hold any."""
        for name, parameter in self.objective.named_parameters():
            whole = self.shapes[name]
            rows = -(-whole[0] // shards)
            first = min(place * rows, whole[0])
            width = whole[1:].numel()
            yield Piece(name, tuple(whole), first * width, local(parameter).numel(), parameter, 0)

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.module.set_requires_gradient_sync(last)
        yield

    def gradient_norm(self) -> Tensor:
        """Rows of all ranks added up; in a hybrid shard each replica's rows count once."""
        squares = torch.stack([gradient.norm() for _, gradient in self.gradients()]).square().sum()
        norm = (self.world.sum(squares) / self.replicas).sqrt()
        return norm if self.scaler is None else norm / self.scaler.scale

    def update(self, norm: Tensor, clip_norm: float | None) -> None:
        factor = torch.ones_like(norm) if self.scaler is None else torch.full_like(norm, 1 / self.scaler.scale)
        if clip_norm is not None:  # as torch.nn.utils.clip_grads_with_norm_ has it, on local tensors
            factor = factor * torch.clamp(clip_norm / (norm + 1e-6), max=1.0)
        if self.scaler is not None or clip_norm is not None:
            for _, gradient in self.gradients():
                gradient.mul_(factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scaler is not None:
            self.scaler.passed()
