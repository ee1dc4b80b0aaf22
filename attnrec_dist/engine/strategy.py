"""How the objective is spread over processes: set-up, wrapping, backward, clipping. The loop above knows no library.

Accelerate finds the processes and the device, autocasts and wraps; its data loaders, schedulers, accumulation and
save_state are not used (each is inexact in a way that the design notes record).
"""

from __future__ import annotations

import datetime
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from attnrec_dist.batch import Batch
from attnrec_dist.distributed import World, keep_freed_memory, needing_peers
from attnrec_dist.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp64"]
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Strategy:
    """One process, or data parallelism over several: whatever the launcher started."""

    def __init__(self, precision: Precision, timeout: float):
        """Joins the job. Raises ConfigError when the launcher's request and what was set up differ."""
        self.precision = precision
        keep_freed_memory()
        with needing_peers("meeting at the start"):
            self.accelerator = Accelerator(
                cpu=not torch.cuda.is_available(),
                mixed_precision="bf16" if precision == "bf16" else "no",
                kwargs_handlers=[
                    InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=timeout)),
                    # Buffers are constants: broadcasting them would be one more collective in every forward.
                    DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False),
                ],
            )
        self._check()
        self.world = World.current(self.accelerator.device)

    def _check(self) -> None:
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self.accelerator.num_processes:
            raise ConfigError(
                f"the launcher started {started} processes but each sees a world of {self.accelerator.num_processes}; "
                "check `distributed_type` in the launch YAML (launch/ddp.yaml works on GPUs and on CPUs)"
            )
        if self.accelerator.distributed_type not in SUPPORTED:
            raise ConfigError(
                f"the launch YAML asks for {self.accelerator.distributed_type.value}, which this version does not run; "
                "use launch/single.yaml or launch/ddp.yaml"
            )
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if asked not in ("no", self.accelerator.mixed_precision):
            raise ConfigError(
                f"the launch YAML asks for mixed_precision {asked}, the run for train.precision {self.precision}; "
                "precision belongs to the run: set --train.precision and leave the launch YAML at `no`"
            )

    @property
    def loss_dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "fp64" else torch.float32

    def wrap(self, objective: nn.Module) -> nn.Module:
        """The objective on its device, in its precision, wrapped for this job."""
        if self.precision == "fp64":
            objective = objective.double()
        with needing_peers("wrapping the model"), warnings.catch_warnings():
            # torch would have the argument by another name, which Accelerate does not pass on.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            wrapped: nn.Module = self.accelerator.prepare_model(objective)
        return wrapped

    def unwrap(self, wrapped: nn.Module) -> nn.Module:
        """The objective itself: its parameters carry the names that checkpoints use."""
        plain: nn.Module = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
        return plain

    def warm_up(self, wrapped: nn.Module, standin: Batch) -> None:
        """Two throw-away passes: DDP lays its buckets out anew after the first, which from three ranks on changes the order of
        additions; done at every start, a resumed run adds in the same order as an uninterrupted one."""
        if self.world.size == 1:
            return
        for _ in range(2):
            loss, _ = wrapped(standin.to(self.world.device))
            self.backward(loss, global_weight=1.0)
        wrapped.zero_grad()

    def no_sync(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Gradients travel once a step, with its last micro-batch."""
        return nullcontext() if last else self.accelerator.no_sync(wrapped)

    def backward(self, loss_sum: Tensor, global_weight: float) -> None:
        """The wrapper averages gradients over ranks; we want the sum over all ranks divided by the global weight."""
        with needing_peers("adding up gradients"):
            (loss_sum * (self.world.size / global_weight)).backward()

    def clip(self, wrapped: nn.Module, norm: float | None) -> None:
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(wrapped.parameters(), norm)

    def close(self) -> None:
        self.accelerator.end_training()
