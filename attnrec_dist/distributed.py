"""The processes of a job: who we are, what we add up, how we agree. A job of one process is the same code without the network.

Every method of World that talks to others is a collective: all ranks call it, in the same order.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from attnrec_dist import errors
from attnrec_dist.errors import AttnrecError, FaultError, PeerError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KERNELS = "16"  # of a step's layers, which see the same sizes


def set_up_memory() -> None:
    """Before the first tensor. oneDNN shall keep few kernels: it keeps one for each size that it has met, up to 1024 of them, and
    batches are of ever new sizes, so that a training on a CPU grew by 2 MB a step, to 3 GB where .6 do (BSARec on Sports).

    glibc shall keep what a step frees for the next one: it gives large blocks back and has them zeroed anew by the system each
    time: 5 to 10 % of a training step with histories of 200, a third of an evaluation. Other C libraries are left as they are.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that it takes
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@dataclass(frozen=True)
class World:
    """This process's place in the job."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: Any = None  # of torch.distributed; None: the one of all processes

    @classmethod
    def current(cls, device: torch.device) -> World:
        """The world that torch.distributed was initialised with, or a world of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(device=device)

    def of_its_own(self, timeout: float) -> World:
        """The same processes with a group of their own, on CPUs, for a thread beside the training. One waits for another at most
        `timeout` seconds. A collective."""
        if self.size == 1:
            return World()
        with needing_peers("making a group"):
            return World(self.rank, self.size, group=dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout)))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all ranks; the argument stays as it is."""
        if self.size == 1:
            return values
        total = values.clone()
        with needing_peers("adding up"):
            dist.all_reduce(total, group=self.group)
        return total

    def any(self, flag: bool) -> bool:
        """True on every rank when it is true on one."""
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def barrier(self) -> None:
        self.any(False)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Each rank's int64 [n_r] array, on every rank, in rank order; lengths may differ."""
        if self.size == 1:
            return [values]
        mine = torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        size = torch.tensor([len(mine)], device=self.device)
        with needing_peers("gathering sizes"):
            dist.all_gather(sizes, size, group=self.group)
        longest = max(int(each) for each in sizes)
        padded = torch.zeros(longest, dtype=torch.int64, device=self.device)
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with needing_peers("gathering"):
            dist.all_gather(parts, padded, group=self.group)
        return [part[: int(size)].cpu().numpy() for part, size in zip(parts, sizes)]

    def share(self, value: Any) -> Any:
        """Rank 0's value on every rank; it travels as JSON, never as a pickle."""
        if self.size == 1:
            return value
        text = np.frombuffer(json.dumps(value).encode() if self.is_main else b"", np.uint8).astype(np.int64)
        return json.loads(self.gather(text)[0].astype(np.uint8).tobytes())

    def on_main(self, function: Callable[[], Any]) -> Any:
        """Runs on rank 0 and gives its (JSON) result to all; an error of rank 0 is raised on every rank."""
        return self.share(self._checked(function if self.is_main else lambda: None, self._from_main))

    def together(self, function: Callable[[], Any]) -> Any:
        """Runs on every rank; where it fails on one, all raise that rank's error instead of waiting for it."""
        return self._checked(function, self._from_any)

    def _checked(self, function: Callable[[], Any], gather: Callable[[str], list[str]]) -> Any:
        failure, result = "", None
        try:
            result = function()
        except AttnrecError as error:
            if self.size == 1:
                raise
            failure = json.dumps([type(error).__name__, str(error)])
        for text in gather(failure):
            if text:
                kind, message = json.loads(text)
                raise _rebuilt(kind, message)
        return result

    def _from_main(self, failure: str) -> list[str]:
        return [self.share(failure)]

    def _from_any(self, failure: str) -> list[str]:
        if self.size == 1:
            return []
        mine = np.frombuffer(failure.encode(), np.uint8).astype(np.int64)
        return [part.astype(np.uint8).tobytes().decode() for part in self.gather(mine)]


def _rebuilt(kind: str, message: str) -> AttnrecError:
    """The error of another rank, of the same class; FaultError where the class is not known here."""
    found = getattr(errors, kind, FaultError)
    error: AttnrecError = found.__new__(found)
    error.args = (message,)
    return error


@contextmanager
def needing_peers(doing: str) -> Iterator[None]:
    """Around whatever waits for other processes: raises PeerError where one is lost, which libraries tell as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):  # gloo has no class of errors, but names its files
            raise
        raise PeerError(
            f"rank {os.environ.get('RANK', '0')} lost another process of the job while {doing} ({str(error).splitlines()[0]}); "
            "look for the first error in the other ranks' output, then run the same command again: it goes on from what was kept"
        ) from None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A stated number of CPU threads, so that sums are added in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
