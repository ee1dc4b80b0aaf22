"""How the objective is spread over processes. The loop knows no library, only this: a strategy computes, backpropagates, updates,
and tells which pieces of the parameters are this rank's.

    single      one process                                 base.py
    DDP         everything on every rank                    base.py
    FSDP2       weights, gradients, optimizer cut           fsdp2.py
    ZeRO 1/2/3  optimizer / + gradients / + weights cut     zero.py

Accelerate starts the processes and tells which strategy was asked for (launch.py). Its data loaders, schedulers, accumulation,
wrapping and save_state are not used: each is inexact in a way that the design notes record.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from attnrec_dist.batch import Batch
from attnrec_dist.distributed import needing_peers
from attnrec_dist.strategies.ema import AVERAGE, averaged
from attnrec_dist.strategies.launch import Job
from attnrec_dist.strategies.shards import Assembly, Piece, local, twin, whole_pieces

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Strategy(ABC):
    """The objective with its optimizer, spread. Whatever is not said to be local is a collective."""

    module: nn.Module  # what is called with a batch
    optimizer: torch.optim.Optimizer  # of this rank's pieces
    pieces: list[Piece]  # in the order of the objective's parameters
    names: list[str]  # of all parameters, in that order
    sharded = True  # whether a rank holds pieces only

    def __init__(self, job: Job):
        self.world = job.world
        self.scaler = job.precision.scaler()

    def __call__(self, batch: Batch) -> Tensor:
        """The sum of a micro-batch's weighted losses, a scalar of this rank."""
        total: Tensor = self.module(batch)
        return total

    @abstractmethod
    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch: gradients travel with the last one alone, where that can be."""

    def backward(self, loss_sum: Tensor, global_weight: float) -> None:
        """All strategies average gradients over ranks; we want the sum over all ranks divided by the global weight."""
        with needing_peers("adding up gradients"):
            self._backward(loss_sum * (self.world.size / global_weight))

    def _backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else loss * self.scaler.scale).backward()

    @abstractmethod
    def gradient_norm(self) -> Tensor:
        """Of the whole gradient, a scalar on the device, the same on all ranks; not finite where any element is not."""

    @abstractmethod
    def update(self, norm: Tensor, clip_norm: float | None) -> None:
        """Clips by that norm, updates this rank's pieces, forgets the gradient."""

    @abstractmethod
    def skip(self) -> None:
        """Forgets the gradient."""

    @abstractmethod
    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """(parameter, this rank's part of its gradient), before `update`. Local."""

    def not_finite(self) -> list[str]:
        """The parameters whose gradient is not finite on any rank."""
        bad = {name for name, gradient in self.gradients() if not bool(gradient.isfinite().all())}
        found = self.world.sum(torch.tensor([float(name in bad) for name in self.names], device=self.world.device))
        return [name for name, flag in zip(self.names, found.tolist(), strict=True) if flag]

    @abstractmethod
    def whole(self, average: bool) -> AbstractContextManager[nn.Module]:
        """The plain objective with whole weights, or their average where there is one, on every rank, inside the context."""

    def warm_up(self, standin: Batch) -> None:  # noqa: B027  (most need none)
        """Whatever makes the first step unlike the others happens here, so that a resumed run adds as an uninterrupted one."""


class Single(Strategy):
    """One process."""

    sharded = False

    def __init__(self, job: Job, objective: nn.Module, make_optimizer: MakeOptimizer):
        super().__init__(job)
        self.objective = self.module = objective
        self.optimizer = make_optimizer(objective)
        self.pieces = whole_pieces(objective.named_parameters())
        self.names = [piece.name for piece in self.pieces]

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def gradient_norm(self) -> Tensor:
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.objective.parameters() if p.grad is not None])
        return norm if self.scaler is None else norm / self.scaler.scale

    def update(self, norm: Tensor, clip_norm: float | None) -> None:
        if self.scaler is not None:
            torch._foreach_mul_([g for _, g in self.gradients()], 1 / self.scaler.scale)
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.objective.parameters(), clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scaler is not None:
            self.scaler.passed()

    def skip(self) -> None:
        self.optimizer.zero_grad()

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, local(p.grad)) for name, p in self.objective.named_parameters() if p.grad is not None)

    @contextmanager
    def whole(self, average: bool) -> Iterator[nn.Module]:
        with averaged(self.objective, self.optimizer) if average else nullcontext():
            yield self.objective


class Ddp(Single):
    """Data parallelism: every rank holds everything and computes its share of each global batch."""

    def __init__(self, job: Job, objective: nn.Module, make_optimizer: MakeOptimizer):
        super().__init__(job, objective, make_optimizer)
        with needing_peers("wrapping the model"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            self.module = DistributedDataParallel(
                objective,
                device_ids=[job.world.device] if job.world.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # they are constants: one more collective in every forward
            )

    def warm_up(self, standin: Batch) -> None:
        """Two throw-away passes: DDP lays its buckets out anew after the first, which from three ranks on changes the order of
        additions."""
        for _ in range(2):
            loss = self.module(standin.to(self.world.device))
            with needing_peers("adding up gradients"):
                (loss * self.world.size).backward()
        self.module.zero_grad()

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.module.no_sync()  # type: ignore[operator]


class Sharded(Strategy):
    """What FSDP2 and ZeRO share: a rank holds pieces, and whole weights are put together in a twin of the objective."""

    def __init__(self, job: Job, objective: nn.Module):
        Strategy.__init__(self, job)  # Single, which FSDP2 is besides, would wrap it its way
        self.names = [name for name, _ in objective.named_parameters()]
        self.shapes = {name: p.shape for name, p in objective.named_parameters()}
        self.twin = twin(objective)
        self._assembly: Assembly | None = None

    @contextmanager
    def whole(self, average: bool) -> Iterator[nn.Module]:
        if self._assembly is None:
            self._assembly = Assembly(self.world, self.names, self.pieces)

        def values(piece: Piece) -> Tensor:
            kept = self.optimizer.state.get(piece.owner, {}) if average else {}
            return piece.of(kept.get(AVERAGE, piece.owner))

        empty = {name: parameter.data for name, parameter in self.twin.named_parameters()}
        try:
            for name, parameter in self.twin.named_parameters():
                parameter.data = self._assembly.whole(name, self.shapes[name], values, parameter.dtype)
            yield self.twin
        finally:
            for name, parameter in self.twin.named_parameters():
                parameter.data = empty[name]
