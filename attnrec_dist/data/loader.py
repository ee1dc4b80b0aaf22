"""Reads the global batches of a run: step -> this rank's packed micro-batches. Steps are independent of one another.

A torch DataLoader serves only as a pool of workers with a time-out: it is asked for steps, which are integers, so it neither
shards, shuffles nor drops anything, and a run that goes on at step s simply asks for s first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from attnrec_dist.batch import Batch
from attnrec_dist.data import order as order_of
from attnrec_dist.data.config import DataConfig
from attnrec_dist.data.order import Order
from attnrec_dist.data.samples import Samples
from attnrec_dist.errors import AttnrecError, WorkerError


@dataclass
class GlobalBatch:
    """One step's work of one rank."""

    step: int
    micro_batches: list[Batch]
    target_weight: float  # of all ranks, known from the order: no collective
    targets: int  # of this rank
    tokens: int  # of this rank

    def pin_memory(self) -> GlobalBatch:
        self.micro_batches = [micro.pin_memory() for micro in self.micro_batches]
        return self


@dataclass(frozen=True)
class Share:
    """Which part of every global batch is this process's, in micro-batches of at most `budget` tokens."""

    rank: int
    world: int
    budget: int


class Steps(Dataset[GlobalBatch]):
    """steps[s] is this rank's share of global batch s; a pure function of s, so workers need no state."""

    def __init__(self, samples: Samples, config: DataConfig, order: Order, share: Share):
        self.samples, self.config, self.order, self.share = samples, config, order, share

    def __getitem__(self, step: int) -> GlobalBatch:
        ids = order_of.samples(self.order, step)
        dealt = order_of.split(self.samples.lengths(ids), self.share.world, self.share.budget)[self.share.rank]
        micro_batches = [self.micro_batch(ids[places], step) for places in dealt]
        return GlobalBatch(
            step=step,
            micro_batches=micro_batches,
            target_weight=float(self.samples.weights(ids).sum()),
            targets=sum(micro.num_targets for micro in micro_batches),
            tokens=sum(micro.num_tokens for micro in micro_batches),
        )

    def micro_batch(self, ids: np.ndarray, step: int = 0) -> Batch:
        """The packed samples of these ids; stand-ins (PADDING) come last, with weight 0."""
        return self.samples.batch(ids, self.order, step)


def batches(steps: Steps, first: int, stop: int, device: torch.device) -> Iterator[GlobalBatch]:
    """The global batches first, first + 1, ..., stop - 1, on the host; read ahead by workers where the config asks for them.

    Raises WorkerError when a worker dies or is silent for longer than data.loader_timeout.
    """
    config = steps.config
    loader = DataLoader(
        steps,
        sampler=range(first, stop),
        batch_size=None,
        num_workers=config.workers,
        timeout=config.loader_timeout if config.workers else 0,
        pin_memory=device.type == "cuda",
    )
    try:
        with worker_errors():
            yield from loader
    except AttnrecError as error:  # torch has put its traceback before what the worker said
        if str(error).startswith("Caught "):
            error.args = (str(error).rpartition(f"{type(error).__module__}.{type(error).__name__}: ")[2].strip(),)
        raise
    except (EOFError, OSError) as error:  # the connection to a worker broke in the middle of a batch
        if not config.workers or str(error).startswith("Caught "):  # so torch begins what the worker itself raised
            raise
        raise _worker_error(error) from None


@contextmanager
def worker_errors() -> Iterator[None]:
    """Tells a worker's death as a WorkerError. torch raises it from a signal handler, so wherever the training process happens
    to be: the loop that consumes the batches stands inside this too."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker", "DataLoader timed out")):
            raise
        raise _worker_error(error) from None


def _worker_error(error: Exception) -> WorkerError:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or the next worker to end would raise again, in the middle of our goodbyes
    what = (str(error) or type(error).__name__).splitlines()[0]
    return WorkerError(
        f"a loader worker failed ({what}); run the same command again to go on from the last "
        "checkpoint, with --data.workers 0 if it happens again (out of memory is the usual cause)"
    )
