"""The start of a process: joins the job, reads off the launcher's environment which strategy is asked for, and refuses what would
compute something else than it says, before any work.

Accelerate sets up processes and device as for plain data parallelism; which of its plugins was asked for is read here and not
left to it, since on CPUs it ignores both without a word. What is built here on CPUs is what is built on GPUs.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch.distributed.rendezvous import rendezvous

from attnrec_dist.distributed import World, needing_peers, set_up_memory
from attnrec_dist.errors import ConfigError
from attnrec_dist.strategies.precision import Precision, PrecisionName

RECORDED = "1000"  # collectives that torch keeps in mind for a flight record
PLUGINS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_PARALLELISM_CONFIG")
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
OURS = "launch/ has one YAML a strategy that works as it is"
# variable -> values that change nothing, and where what it asks for is set instead
ELSEWHERE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (("1", "auto", "none"), "it follows from train.micro_batch_tokens"),
    "ACCELERATE_GRADIENT_CLIPPING": (("none", "auto"), "type --optimizer.clip_norm"),
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": (("none",), "the YAML's own keys are read: zero_stage, offload_optimizer_device"),
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": (("false", "none"), "leave zero3_init_flag at false"),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": (("none",), "weights stay on the device: offload_param_device: none"),
    "FSDP_OFFLOAD_PARAMS": (("false", "none"), "weights stay on the device: fsdp_offload_params: false"),
    "FSDP_ACTIVATION_CHECKPOINTING": (("false", "none"), "type --train.activation_checkpointing true"),
    "ACCELERATE_DYNAMO_BACKEND": (("no", "none"), "leave dynamo_config out and type --train.compile true"),
}
Kind = Literal["plain", "fsdp2", "zero"]


@dataclass(frozen=True)
class Asked:
    """The strategy that the launch YAML names."""

    kind: Kind = "plain"  # plain: one process, or DDP over several
    stage: int = 0  # of ZeRO
    offload: bool = False  # ZeRO: the optimizer on the CPU
    reshard: bool = True  # FSDP2: whether weights are gathered anew in the backward pass
    replicas: int = 1  # FSDP2: groups of ranks that hold the same shards (hybrid shard)

    @property
    def cuts_weights(self) -> bool:
        """Whether ranks gather weights from one another in a forward pass."""
        return self.kind == "fsdp2" or self.stage == 3

    @classmethod
    def from_environment(cls, processes: int) -> Asked:
        """Raises ConfigError for what is not run, or is to be set elsewhere."""
        for variable, (harmless, instead) in ELSEWHERE.items():
            value = os.environ.get(variable, "none").lower()
            if value not in harmless:
                raise ConfigError(f"the launch YAML sets {variable} to {value}, which is not read there: {instead}")
        if _is_set("ACCELERATE_USE_MEGATRON_LM"):
            raise ConfigError(f"the launch YAML asks for Megatron-LM, which this version does not run; {OURS}")
        if _is_set("ACCELERATE_USE_DEEPSPEED"):
            stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "none")
            if stage not in ("1", "2", "3"):
                raise ConfigError(f"the launch YAML asks for zero_stage {stage}; 1, 2 and 3 are run; {OURS}")
            where = os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none")
            if where not in ("none", "cpu"):
                raise ConfigError(f"the launch YAML asks for offload_optimizer_device {where}; none and cpu are run")
            return cls("zero", int(stage), where == "cpu")
        if not _is_set("ACCELERATE_USE_FSDP"):
            return cls()
        version = os.environ.get("FSDP_VERSION", "1")
        if version != "2":
            raise ConfigError(f"the launch YAML asks for FSDP {version}; only fsdp_version: 2 is run: launch/fsdp2.yaml")
        reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
        if reshard not in ("true", "false"):
            raise ConfigError(f"fsdp_reshard_after_forward: {reshard} is a word of FSDP 1; true or false")
        return cls("fsdp2", reshard=reshard == "true", replicas=_replicas(processes))


def _replicas(processes: int) -> int:
    """Raises ConfigError where replicas times shards are not the processes, or another kind of parallelism is asked for."""
    if not _is_set("ACCELERATE_USE_PARALLELISM_CONFIG"):
        return 1
    sizes = {
        key: int(os.environ.get(f"PARALLELISM_CONFIG_{key}_SIZE", "1")) for key in ("DP_REPLICATE", "DP_SHARD", "TP", "CP", "SP")
    }
    others = [f"{key.lower()}_size {size}" for key, size in sizes.items() if key in ("TP", "CP", "SP") and size > 1]
    if others:
        raise ConfigError(f"the launch YAML asks for {', '.join(others)}; only dp_replicate_size and dp_shard_size are run")
    replicas, shards = sizes["DP_REPLICATE"], sizes["DP_SHARD"]
    if replicas * shards != processes:
        raise ConfigError(
            f"the launch YAML asks for {replicas} replicas of {shards} shards, but there are {processes} processes; set "
            "parallelism_config_dp_replicate_size and parallelism_config_dp_shard_size so that their product is num_processes"
        )
    return replicas


@dataclass(frozen=True)
class Job:
    """The job that this process belongs to."""

    world: World
    precision: Precision
    asked: Asked = Asked()
    accelerator: Accelerator | None = None
    began: float = field(default_factory=time.monotonic)  # when this process came to join

    def close(self) -> None:
        if self.accelerator is not None:
            self.accelerator.end_training()


def join(precision: PrecisionName, timeout: float, deterministic: bool = False) -> Job:
    """Joins the job. Raises ConfigError when the launcher's request and what was set up differ."""
    began = time.monotonic()
    set_up_memory()
    repeat_exactly(deterministic)
    _enough_gpus()
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", RECORDED)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    asked = Asked.from_environment(started)
    patience = datetime.timedelta(seconds=timeout)
    with needing_peers("meeting at the start"), _without_plugins():
        _meet_apart(patience)
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=patience)], mixed_precision="no"
        )
        if asked.kind != "plain" and not dist.is_initialized() and "RANK" in os.environ:  # a world of one has a group, too
            dist.init_process_group("gloo" if accelerator.device.type == "cpu" else "nccl", timeout=patience)
    if started != accelerator.num_processes:
        raise ConfigError(
            f"the launcher started {started} processes but each sees a world of {accelerator.num_processes}; "
            "check `distributed_type` in the launch YAML (launch/ddp.yaml works on GPUs and on CPUs)"
        )
    if accelerator.distributed_type not in SUPPORTED:
        raise ConfigError(
            f"the launch YAML asks for {accelerator.distributed_type.value}, which this version does not run; {OURS}"
        )
    world = World.current(accelerator.device)
    return Job(world, Precision.on(precision, world.device), asked, accelerator, began)


def _meet_apart(patience: datetime.timedelta) -> None:
    """In a launcher's second attempt (--max_restarts), away from the first one's keys: the store of `accelerate launch` outlives
    an attempt, with addresses of processes that are gone and the watchdog's last words in it."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or dist.is_initialized():
        return
    store, rank, size = next(rendezvous("env://", timeout=patience))
    own = dist.PrefixStore(f"attempt-{attempt}", store)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=patience)


def repeat_exactly(deterministic: bool) -> None:
    """Algorithms that give the same bits each time, or an error; before the GPU is first used. CPUs have no others here."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False


def _enough_gpus() -> None:
    """Raises ConfigError where the launcher started more processes on this machine than it has GPUs."""
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < here:
        raise ConfigError(
            f"the launcher started {here} processes on a machine of {gpus} GPUs, and each needs its own: "
            f"accelerate launch --num_processes {gpus} ..."
        )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Accelerate finds processes and device the same way for every strategy; the environment is as before afterwards."""
    before = {name: os.environ.pop(name) for name in (*PLUGINS, "ACCELERATE_MIXED_PRECISION") if name in os.environ}
    try:
        yield
    finally:
        os.environ |= before
