"""torch.compile, by regions: what repeats is compiled once, and what Python decides anew for each batch stays as it is.

Regions are a model's blocks; a model without any is one region. Sizes are symbols from the first step on, because packed batches
differ in their tokens: so there is one kernel for all of them, and a resumed run uses the kernels of the uninterrupted one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from attnrec_dist.engine.join import Job
from attnrec_dist.errors import ConfigError
from attnrec_dist.models.layers import Block

COMPILERS = ("g++", "clang++")


def compile_regions(model: nn.Module, job: Job) -> None:
    """Has the regions compiled when they are first called. Raises ConfigError where that cannot be."""
    if job.asked.kind == "zero":
        raise ConfigError(
            "train.compile: DeepSpeed hooks itself into the modules; leave it out, or launch with launch/fsdp2.yaml"
        )
    if job.world.device.type == "cpu" and not _has_compiler():
        raise ConfigError(
            f"train.compile: on a CPU it needs a C++ compiler, and none of {', '.join(COMPILERS)} is there; install one "
            "(apt install g++), name it in the variable CXX, or leave train.compile out"
        )
    regions: list[nn.Module] = [each for each in model.modules() if isinstance(each, Block)]
    for region in regions or [model]:
        region.compile(dynamic=True)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


@contextmanager
def eagerly() -> Iterator[None]:
    """Inside, nothing is compiled and nothing compiled is used: an evaluation's shapes are not worth it."""
    with torch.compiler.set_stance("force_eager"):
        yield
