"""DeepSpeed's ZeRO: the optimizer's state (stage 1), the gradients too (2), the weights too (3) are cut by elements.

DeepSpeed is given torch's Adam, as every other strategy has it, and compiles nothing: none of its own operators is asked for, and
the one that it would build for its collectives on CPUs is declared missing (a minute at the first start; killed in the middle, it
leaves a lock on which later starts wait). Accumulation, clipping and loss scale are driven from here, its own scheduler, loader,
mixed precision and checkpoint writer are not used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnrec_dist.distributed import needing_peers
from attnrec_dist.errors import ConfigError
from attnrec_dist.strategies.base import MakeOptimizer, Sharded
from attnrec_dist.strategies.launch import Job
from attnrec_dist.strategies.shards import Piece

BUCKET = 50_000_000  # elements reduced at once


class Zero(Sharded):
    """Stage 1, 2 or 3, the optimizer on the device or on the CPU."""

    def __init__(self, job: Job, objective: nn.Module, make_optimizer: MakeOptimizer):
        super().__init__(job, objective)
        if job.precision.name == "fp64":
            raise ConfigError("train.precision fp64 is for tests, and ZeRO keeps fp32 weights; use launch/ddp.yaml or fsdp2.yaml")
        self.stage = job.asked.stage
        deepspeed = imported()
        self.by_id = {id(parameter): name for name, parameter in objective.named_parameters()}
        with needing_peers("wrapping the model"):
            self.engine, *_ = deepspeed.initialize(
                model=objective, optimizer=make_optimizer(objective), config=settings(job), dist_init_required=False
            )
        self.module = self.engine
        self.zero: Any = self.engine.optimizer
        self.optimizer = self.zero.optimizer
        rank = job.world.rank
        pieces = self._of_stage_3(rank) if self.stage == 3 else self._of_stage_1_and_2(rank)
        found = {piece.name: piece for piece in pieces}
        self.pieces = [found[name] for name in self.names if name in found]

    def _of_stage_1_and_2(self, rank: int) -> Iterator[Piece]:
        """The parameters of a group lie one after another, padded here and there; each rank has an equal part of them all."""
        zero = self.zero
        for group, owner in enumerate(zero.single_partition_of_fp32_groups):
            low = rank * zero.partition_size[group]
            high = low + zero.partition_size[group]
            for parameter, at in zip(zero.round_robin_bit16_groups[group], zero.round_robin_bit16_offsets[group], strict=True):
                first, last = max(at, low), min(at + parameter.numel(), high)
                if first < last:
                    yield Piece(self.by_id[id(parameter)], tuple(parameter.shape), first - at, last - first, owner, first - low)

    def _of_stage_3(self, rank: int) -> Iterator[Piece]:
        """Each parameter is cut into equal parts, the last ones shorter or empty; a rank's parts lie one after another."""
        for group, owner in zip(self.zero.fp16_groups, self.zero.fp32_partitioned_groups_flat, strict=True):
            offset = 0
            for parameter in group:
                part, whole = parameter.partition_numel(), parameter.ds_numel
                first = min(rank * part, whole)
                yield Piece(self.by_id[id(parameter)], tuple(parameter.ds_shape), first, min(part, whole - first), owner, offset)
                offset += part

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Stage 1 keeps gradients until the last micro-batch; from stage 2 on there is no place to keep them whole."""
        self.engine.set_gradient_accumulation_boundary(last)
        if self.scaler is not None:
            self.zero.loss_scaler.cur_scale = self.scaler.scale
        yield

    def _backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def gradient_norm(self) -> Tensor:
        with needing_peers("adding up the gradient's norm"):
            if self.stage == 3:
                from deepspeed.runtime.utils import combine_grad_norm_groups

                norm = combine_grad_norm_groups(self.zero._get_norm_groups())
            else:
                norm = self.zero.scaled_global_norm()
        norm = torch.as_tensor(norm, dtype=torch.float32, device=self.world.device)
        return torch.where(norm < 0, torch.inf, norm) / self.zero.loss_scale  # DeepSpeed's word for not finite is -1

    def update(self, norm: Tensor, clip_norm: float | None) -> None:
        self.zero.clip_grad = clip_norm or 0.0
        with needing_peers("updating the weights"):
            self.engine.step()
        if self.scaler is not None:
            self.scaler.passed()

    def skip(self) -> None:
        self.engine.step()  # which forgets a gradient that is not finite, and updates nothing

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Where the optimizer is on the CPU, they have been brought there."""
        for piece in self.pieces:
            if piece.owner.grad is not None:
                yield piece.name, piece.of(piece.owner.grad)
        for group in range(len(self.zero.averaged_gradients)):
            held = self.zero.fp16_groups[group] if self.stage == 3 else self.zero.params_in_partition[group]
            for parameter, gradient in zip(held, self.zero.averaged_gradients[group] or [], strict=False):
                yield self.by_id[id(parameter)], gradient


def settings(job: Job) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    zero: dict[str, Any] = {"stage": job.asked.stage, "reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET}
    if job.asked.stage == 3:
        zero |= {"stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": BUCKET}
    if job.asked.offload:
        zero |= {"offload_optimizer": {"device": "cpu", "pin_memory": job.world.device.type == "cuda"}}
    return {
        "train_micro_batch_size_per_gpu": 1,  # of which DeepSpeed makes only printed figures
        "gradient_accumulation_steps": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


def imported() -> Any:
    """The package, quiet, its operator for collectives on CPUs declared missing."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    try:
        import deepspeed
    except ModuleNotFoundError as error:
        raise ConfigError(f"ZeRO needs DeepSpeed ({error}): pip install deepspeed, or launch with launch/fsdp2.yaml") from None
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    for name in deepspeed.ops.__compatible_ops__:
        deepspeed.ops.__compatible_ops__[name] = False
    if not torch.distributed.is_initialized():
        raise ConfigError("ZeRO needs a launcher: accelerate launch --config_file launch/zero2.yaml -m attnrec_dist train ...")
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), verbose=False)
    return deepspeed
